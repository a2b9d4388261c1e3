"""Stories in which nothing leaks, although some look like leaks."""

from dataclasses import replace

from pgwatch_sessions.core.findings import Verdict
from pgwatch_sessions.core.model import Client, FailureReason
from tests.scenarios.chance import about, between, changing, long_tailed, steady
from tests.scenarios.healthy_pools import ASYNCPG, POOLS, SURGE
from tests.scenarios.healthy_visitors import VISITORS
from tests.scenarios.pools import (
    autocommit,
    per_request,
    pgx,
    sqlalchemy,
)
from tests.scenarios.requests import LIST_ORDERS, READ_METRICS, READ_STOCK, Request
from tests.scenarios.server import Postgres
from tests.scenarios.services import Service
from tests.scenarios.shop import BIG, ORDERS, orders
from tests.scenarios.story import REST, Says, Story

BUSY_OR_FULL = (Verdict.SATURATED, Verdict.OK, Verdict.SLOW)

LOAD = (
    Story(
        name="many sessions idle in transaction for a moment",
        family="load",
        parts=(orders(Request(sql=READ_STOCK.sql, thinks=about(0.4), share=9), traffic=steady(100)),),
        minutes=10,
        server=BIG,
    ),
    Story(
        name="one session idle in transaction for ten seconds at a time",
        family="load",
        parts=(orders(Request(sql=READ_STOCK.sql, thinks=about(10), share=0.1)),),
    ),
    Story(
        name="pool too small",
        family="saturation",
        parts=(
            orders(
                pool=sqlalchemy(5, 0, timeout=3),
                requests=(replace(LIST_ORDERS, takes=about(0.8)),),
                traffic=changing((0, 2), (300, 30)),
                instances=((0, 1),),
            ),
        ),
        diagnosis=(
            Says(ORDERS, 300, 420, BUSY_OR_FULL),
            Says(ORDERS, 420, REST, (Verdict.SATURATED,)),
            Says(None, 300, 420, BUSY_OR_FULL),
            Says(None, 420, REST, (Verdict.SATURATED, Verdict.OK)),
        ),
    ),
    Story(
        name="server too small",
        family="saturation",
        parts=(
            orders(
                requests=(replace(LIST_ORDERS, takes=about(1.5)),),
                pool=per_request(),
                traffic=changing((0, 5), (300, 90)),
            ),
        ),
        diagnosis=(
            Says(ORDERS, 300, 420, BUSY_OR_FULL),
            Says(None, 300, 420, BUSY_OR_FULL),
            Says(ORDERS, 420, REST, (Verdict.SATURATED,)),
            Says(None, 420, REST, (Verdict.SATURATED,)),
        ),
    ),
    Story(
        name="external call with a long tail inside the transaction",
        family="long holds",
        parts=(
            orders(Request(sql=READ_METRICS.sql, thinks=long_tailed(4, at_most=100), share=0.3), traffic=steady(3)),
        ),
        minutes=40,
    ),
    Story(
        name="streams of 20 to 45 seconds",
        family="long holds",
        parts=(orders(Request(sql=READ_METRICS.sql, thinks=between(20, 45), share=0.3), traffic=steady(2)),),
        minutes=30,
    ),
    Story(
        name="wedged: an external service answers slowly for a minute",
        family="wedged",
        parts=(
            orders(
                Request(sql=READ_METRICS.sql, thinks=about(90), per_minute=120, begin=300, end=360),
                pool=sqlalchemy(10, 10),
            ),
        ),
        minutes=30,
        excused=frozenset({ORDERS}),
        diagnosis=(
            Says(ORDERS, 300, 360, tuple(Verdict)),
            Says(ORDERS, 360, 390, (Verdict.SATURATED, Verdict.SLOW, Verdict.LEAKING, Verdict.BLOCKED)),
            Says(ORDERS, 390, 600, tuple(Verdict)),
            Says(None, 300, 600, tuple(Verdict)),
        ),
    ),
    Story(
        name="background work with the request's session",
        family="long holds",
        parts=(orders(Request(sql=READ_METRICS.sql, thinks=about(25), writes=True, share=0.3), traffic=steady(2)),),
        minutes=30,
    ),
    Story(
        name="Celery workers compute inside their transactions",
        family="long holds",
        parts=(
            Service(
                application="celery",
                pool=sqlalchemy(1, 0, timeout=600),
                workers=4,
                requests=(Request(sql=READ_STOCK.sql, thinks=between(2, 40), repeats=3, writes=True),),
                traffic=steady(0.1),
            ),
        ),
        minutes=40,
        diagnosis=(Says(Client("shop", "app", "celery"), 0, REST, (Verdict.OK, Verdict.SATURATED)),),
    ),
    Story(
        name="serverless functions freeze between calls",
        family="no pool",
        parts=(
            Service(
                application="lambda",
                pool=replace(autocommit(1, 0), timeout=1),
                instances=((0, 10), (600, 40), (1800, 15)),
                requests=(LIST_ORDERS,),
                traffic=changing((0, 0.2), (600, 2), (1800, 0.1)),
            ),
        ),
        minutes=60,
    ),
)

CHANGES = (
    Story(
        name="deploys, one instance after the other",
        family="deploys",
        parts=(orders(pool=sqlalchemy(5, 5), instances=((0, 4),), deploys=(300, 900), traffic=steady(15)),),
        minutes=30,
    ),
    Story(
        name="deploys of prewarmed pools",
        family="deploys",
        parts=(orders(pool=ASYNCPG, instances=((0, 6),), deploys=(300, 900)),),
        minutes=30,
        server=BIG,
    ),
    Story(
        name="scale-out from two to eight in the morning rush",
        family="deploys",
        parts=(
            orders(
                pool=sqlalchemy(5, 5),
                instances=((0, 2), (600, 4), (780, 8)),
                traffic=changing((0, 3), (580, 30), (760, 80)),
            ),
        ),
        minutes=40,
        server=BIG,
    ),
    Story(
        name="scale-out without reset",
        family="deploys",
        parts=(orders(pool=pgx(10), instances=((0, 2), (600, 8)), traffic=changing((0, 3), (580, 60))),),
        minutes=40,
        server=BIG,
    ),
    Story(
        name="killed with SIGKILL and started again",
        family="deploys",
        parts=(orders(instances=((0, 2), (300, 0), (330, 2))),),
    ),
    Story(
        name="hosts vanish from the network",
        family="deploys",
        parts=(orders(Request(sql=READ_METRICS.sql, thinks=about(3)), vanishes=600),),
        # The sessions that they leave look exactly like a leak.
        excused=frozenset({ORDERS}),
        diagnosis=(Says(ORDERS, 600, REST, tuple(Verdict)), Says(None, 600, REST, tuple(Verdict))),
    ),
    Story(
        name="failover with everybody reconnecting",
        family="deploys",
        parts=(orders(traffic=steady(20)), orders(application="invoices", pool=ASYNCPG, network="10.0.4")),
        restarts=((600, 25),),
        server=BIG,
    ),
    Story(name="monitor restarts", family="blind", parts=(orders(traffic=SURGE),), monitor_restarts=(400, 800)),
    Story(
        name="clock steps forward and back",
        family="blind",
        parts=(orders(), orders(application="invoices", pool=ASYNCPG, network="10.0.4")),
        clock_steps=((300, 300.0), (700, -500.0)),
    ),
    Story(
        name="pids come again",
        family="blind",
        parts=(orders(Request(sql=READ_STOCK.sql, takes=about(0.8)), pool=per_request(), traffic=steady(10)),),
        server=Postgres(pids=120, max_connections=110),
    ),
    Story(
        name="failed polls during a rush",
        family="blind",
        parts=(orders(traffic=SURGE),),
        blind=((320, 500, FailureReason.TIMEOUT), (900, 910, FailureReason.NETWORK)),
    ),
    Story(
        name="hidden states",
        family="blind",
        parts=(orders(),),
        server=Postgres(hidden_users=frozenset({"*"})),
        diagnosis=(Says(ORDERS, 0, REST, (Verdict.UNKNOWN,)), Says(None, 0, REST, (Verdict.UNKNOWN,))),
    ),
    Story(
        name="states of one role hidden",
        family="blind",
        parts=(orders(), orders(application="secret", user="root", network="10.0.4")),
        server=Postgres(hidden_users=frozenset({"root"})),
        diagnosis=(
            Says(Client("shop", "root", "secret"), 0, REST, (Verdict.UNKNOWN,)),
            Says(None, 0, REST, (Verdict.OK, Verdict.UNKNOWN)),
        ),
    ),
)

HEALTHY = (*POOLS, *LOAD, *CHANGES, *VISITORS)
