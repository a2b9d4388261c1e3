"""Stories with a leak and something else: several clients, limits, deploys, time-outs, failed polls."""

from dataclasses import replace

from pgwatch_sessions.core.findings import Severity, Verdict
from pgwatch_sessions.core.model import Client, FailureReason
from tests.scenarios.chance import about, between, rush, steady, then_silence
from tests.scenarios.pools import asyncpg_pool, per_request, pgbouncer, sqlalchemy
from tests.scenarios.requests import PAY_ORDER, READ_METRICS, READ_ORDER, READ_STOCK, Keeps, Request, leaking
from tests.scenarios.scripts import Begin, Run, Script, Think, listener
from tests.scenarios.server import Postgres
from tests.scenarios.services import Service
from tests.scenarios.shop import BIG, CONNECTION, GROWTH, ORDERS, orders, truth
from tests.scenarios.story import REST, Says, Story, Truth

_RESERVE = "UPDATE stock SET reserved = reserved + 1 WHERE id = $1"

IN_COMPANY = (
    Story(
        name="killed by the server after five minutes",
        family="killed by time-out",
        parts=(orders(leaking(READ_ORDER, per_minute=6)),),
        leaks=(truth(READ_ORDER, has_rate=False),),
        server=Postgres(idle_in_transaction_session_timeout=300),
        minutes=30,
    ),
    Story(
        name="killed by the server before the hold limit",
        family="killed by time-out",
        parts=(orders(leaking(READ_ORDER, per_minute=6)),),
        leaks=(truth(READ_ORDER, has_rate=False),),
        server=Postgres(idle_in_transaction_session_timeout=45),
        minutes=30,
    ),
    Story(
        name="killed by the server so soon that hardly one is there at a time",
        family="killed by time-out",
        parts=(orders(leaking(READ_ORDER, per_minute=2)),),
        leaks=(truth(READ_ORDER, has_rate=False),),
        server=Postgres(idle_in_transaction_session_timeout=60),
        minutes=40,
        # At many polls, no session has been held for longer than normal.
        diagnosis=(
            Says(ORDERS, 0, REST, (Verdict.OK, Verdict.LEAKING)),
            Says(None, 0, REST, (Verdict.OK, Verdict.LEAKING)),
        ),
    ),
    Story(
        name="two leaks in one client",
        family="several",
        parts=(orders(leaking(READ_ORDER, per_minute=3), leaking(READ_METRICS, per_minute=2, begin=300)),),
        leaks=(truth(READ_ORDER), truth(READ_METRICS)),
    ),
    Story(
        name="one leaking application of three that share a role",
        family="several",
        parts=(
            orders(),
            orders(application="invoices", network="10.0.4"),
            orders(leaking(READ_STOCK, per_minute=3), application="stock", network="10.0.5"),
        ),
        leaks=(truth(READ_STOCK, Client("shop", "app", "stock")),),
        server=BIG,
    ),
    Story(
        name="blank application name",
        family="several",
        parts=(
            orders(),
            orders(
                leaking(READ_METRICS, per_minute=4, keeps=Keeps.CONNECTION), application="", pool=asyncpg_pool(10, 40)
            ),
        ),
        leaks=(truth(READ_METRICS, Client("shop", "app", "(none)"), kinds=CONNECTION),),
        server=BIG,
    ),
    Story(
        name="PgBouncer in front",
        family="pooler",
        parts=(orders(leaking(READ_ORDER, per_minute=2), pool=pgbouncer(40), pooler="10.8.0.1", adds_host=True),),
        leaks=(truth(READ_ORDER),),
    ),
    Story(
        name="role limit reached first",
        family="limits",
        parts=(orders(leaking(READ_ORDER, per_minute=3, pool_forgets=True)), listener()),
        leaks=(truth(READ_ORDER),),
        server=Postgres(role_limits=(("app", 50), ("owner", 5))),
        forecast=True,
        minutes=30,
    ),
    Story(
        name="database limit reached first",
        family="limits",
        parts=(orders(leaking(READ_ORDER, per_minute=2, keeps=Keeps.CONNECTION), pool=per_request()),),
        leaks=(truth(READ_ORDER, kinds=GROWTH),),
        server=Postgres(database_limits=(("shop", 40),), max_connections=400),
        forecast=True,
        minutes=40,
    ),
    Story(
        name="leak under saturation",
        family="several",
        parts=(
            orders(
                Request(sql=READ_STOCK.sql, takes=about(2), share=4),
                leaking(READ_ORDER, share=1, chance=0.02),
                pool=sqlalchemy(10, 10, timeout=3),
                traffic=rush(2, 12, begin=120, end=9000),
            ),
        ),
        leaks=(truth(READ_ORDER, has_rate=False),),
        diagnosis=(Says(ORDERS, 0, 600, (Verdict.OK, Verdict.SATURATED, Verdict.LEAKING)),),
    ),
    Story(
        name="leak that comes with a deploy",
        family="deploys",
        parts=(orders(leaking(READ_ORDER, per_minute=6, begin=600), deploys=(600,), instances=((0, 4),)),),
        leaks=(truth(READ_ORDER),),
        server=BIG,
    ),
    Story(
        name="leak through a deploy that mends nothing",
        family="deploys",
        parts=(orders(leaking(READ_ORDER, per_minute=2), deploys=(900,), instances=((0, 3),)),),
        leaks=(truth(READ_ORDER, findings=2, has_rate=False),),
        minutes=30,
        # The deploy ends all leaked sessions. Whether it also mended the leak shows when the next hold is too long.
        diagnosis=tuple(Says(who, 900, 1080, (Verdict.OK, Verdict.LEAKING)) for who in (ORDERS, None)),
        server=BIG,
    ),
    Story(
        name="fixed by a restart",
        family="deploys",
        parts=(orders(leaking(READ_ORDER, per_minute=4, end=900), deploys=(900,)),),
        leaks=(truth(READ_ORDER),),
        minutes=30,
        server=BIG,
    ),
    Story(
        name="one leaking instance of eight",
        family="several",
        parts=(
            orders(instances=((0, 7),)),
            orders(leaking(READ_ORDER, per_minute=4), instances=((0, 1),), network="10.0.9"),
        ),
        leaks=(truth(READ_ORDER),),
        server=BIG,
    ),
    Story(
        name="fleet of 3,000 sessions with one leaker",
        family="several",
        parts=(
            *(
                Service(
                    application=f"svc-{i}",
                    network=f"10.{i}.0",
                    pool=asyncpg_pool(10, 20),
                    instances=((0, 3),),
                    traffic=steady(0.5),
                )
                for i in range(98)
            ),
            orders(leaking(READ_ORDER, per_minute=12, begin=120)),
        ),
        leaks=(truth(READ_ORDER, fast=True),),
        server=Postgres(max_connections=5000),
        minutes=10,
    ),
    Story(
        name="failed polls in the middle",
        family="blind",
        parts=(orders(leaking(READ_ORDER, per_minute=3)),),
        leaks=(truth(READ_ORDER),),
        blind=((300, 420, FailureReason.TIMEOUT), (700, 710, FailureReason.NETWORK)),
        server=BIG,
    ),
    Story(
        name="monitor restarts during a leak",
        family="blind",
        parts=(orders(leaking(READ_ORDER, per_minute=3)),),
        leaks=(truth(READ_ORDER, has_rate=False),),
        monitor_restarts=(600,),
        server=BIG,
    ),
    Story(
        name="pids come again during a leak",
        family="blind",
        parts=(
            orders(leaking(READ_ORDER, per_minute=3)),
            Service(application="cgi", pool=per_request(), network="10.0.3"),
        ),
        leaks=(truth(READ_ORDER),),
        server=Postgres(pids=300, max_connections=300),
    ),
    Story(
        name="clock steps during a leak",
        family="blind",
        parts=(orders(leaking(READ_ORDER, per_minute=3)),),
        leaks=(truth(READ_ORDER, has_rate=False),),
        clock_steps=((500, 30.0), (800, -45.0)),
        server=BIG,
    ),
    Story(
        name="silence after the leak",
        family="transaction held",
        parts=(orders(leaking(READ_ORDER, per_minute=4, end=600), traffic=then_silence(4, at=600)),),
        leaks=(truth(READ_ORDER),),
        minutes=60,
    ),
    Story(
        name="a write, slow work, a read, and no end",
        family="transaction held",
        parts=(
            orders(),
            Script(
                application="importer",
                steps=(
                    Begin(),
                    Run(_RESERVE, writes=True),
                    Think(between(12, 25)),
                    Run("SELECT name FROM suppliers WHERE id = $1"),
                ),
                every=40.0,
                starts=300,
                leaks=True,
                last_write=_RESERVE,
            ),
        ),
        leaks=(Truth(client=Client("shop", "app", "importer"), site="UPDATE stock"),),
    ),
    Story(
        name="one session held since the start",
        family="single",
        parts=(
            orders(),
            Script(
                application="orders",
                steps=(Begin(), Run("SELECT key, value FROM settings")),
                leaks=True,
                address="10.0.0.11",
            ),
        ),
        leaks=(Truth(client=ORDERS, site="SELECT settings", severity=Severity.NOTICE, has_rate=False),),
        minutes=30,
        diagnosis=(
            Says(ORDERS, 0, REST, (Verdict.OK, Verdict.LEAKING)),
            Says(None, 0, REST, (Verdict.OK, Verdict.LEAKING)),
        ),
    ),
    Story(
        name="one leaked session that blocks others",
        family="single",
        parts=(
            orders(
                replace(PAY_ORDER, locks="orders:7", gives_up=20.0, share=0.3),
                pool=sqlalchemy(10, 20),
            ),
            Script(
                application="backoffice",
                steps=(Begin(), Run("UPDATE orders SET note = $1 WHERE id = $2", writes=True, locks="orders:7")),
                starts=300,
                leaks=True,
            ),
        ),
        leaks=(Truth(client=Client("shop", "app", "backoffice"), site="UPDATE orders", has_rate=False),),
        diagnosis=(
            Says(ORDERS, 300, 420, tuple(Verdict)),
            Says(ORDERS, 420, REST, (Verdict.BLOCKED,)),
            Says(None, 300, 420, tuple(Verdict)),
            Says(None, 420, REST, (Verdict.BLOCKED, Verdict.LEAKING)),
        ),
    ),
)
