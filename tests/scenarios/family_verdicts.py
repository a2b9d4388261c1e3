"""Families of stories about verdicts, forecasts, blocking, and what one poll shows."""

from dataclasses import replace

from pgwatch_sessions.core.findings import Verdict
from pgwatch_sessions.core.model import Client
from tests.scenarios.chance import about, exactly, steady
from tests.scenarios.company import company
from tests.scenarios.draws import Draws, pool_with_reset
from tests.scenarios.pools import sqlalchemy
from tests.scenarios.requests import PAY_ORDER, READ_METRICS, READ_ORDER, READ_STOCK, Keeps, Request, leaking
from tests.scenarios.scripts import Begin, End, Run, Script, Think, dump
from tests.scenarios.server import Postgres
from tests.scenarios.shop import BIG, ORDERS, orders
from tests.scenarios.story import REST, Says, Story, Truth

BACKOFFICE = Client("shop", "app", "backoffice")
_LEAKS = {"after SELECT": READ_ORDER, "after UPDATE": PAY_ORDER, "after a slow SELECT": READ_METRICS}


def _blocker(draws: Draws, *, starts: float, seconds: float) -> Script:
    lock = draws.one_of("lock", {"row": "orders:7", "table": "shipments"})
    held = Run("UPDATE orders SET note = $1 WHERE id = $2", writes=True, locks=lock)
    steps = (Begin(), held, Think(exactly(seconds), too_long=True), End())
    return Script(application="backoffice", steps=steps, starts=starts, stays=True)


def one_session_blocks(draws: Draws) -> Story:
    """Draw one session idle in transaction that blocks others: warning at the limit, critical after two of them."""
    starts, seconds = draws.between("from s", 200, 600), draws.magnitude("held s", 200, 1500)
    blocker = _blocker(draws, starts=starts, seconds=seconds)
    lock = "orders:7" if "lock row" in draws.drawn else "shipments"
    # All reads go on if only a row is locked.
    waits = replace(
        PAY_ORDER,
        locks=lock,
        share=draws.magnitude("share that waits", 0.2, 3),
        gives_up=draws.one_of("gives up", {"never": None, "after 30 s": 30.0}),
    )
    service = orders(
        waits, pool=replace(sqlalchemy(10, 20), timeout=10), traffic=steady(draws.magnitude("requests/s", 2, 15))
    )
    ends = starts + seconds
    return Story(
        name="",
        family="one session blocks",
        parts=(service, blocker, *company(draws, minutes=40, calm=True)),
        minutes=40,
        leaks=(
            Truth(
                client=BACKOFFICE, site="UPDATE orders", enough=1, found_within=90, warned_within=90,
                critical_within=160, has_rate=False,
            ),
        ),
        diagnosis=(
            Says(BACKOFFICE, 0, REST, tuple(Verdict)),
            Says(ORDERS, starts, starts + 60, tuple(Verdict)),
            Says(ORDERS, starts + 60, ends, (Verdict.BLOCKED,)),
            Says(ORDERS, ends, ends + 60, tuple(Verdict)),
            Says(None, starts, starts + 60, tuple(Verdict)),
            Says(None, starts + 60, ends, (Verdict.BLOCKED, Verdict.LEAKING)),
            Says(None, ends, ends + 60, tuple(Verdict)),
        ),
        server=BIG,
        flat=((ends + 600, REST),),
    )  # fmt: skip


def leak_blocks_its_own_client(draws: Draws) -> Story:
    """Draw a leak whose sessions keep a row lock for which others of the same client wait."""
    starts = draws.between("from s", 200, 600)
    update = Run("UPDATE carts SET paid = true WHERE id = $1", writes=True, locks="carts:7")
    locked = Script(application="orders", address="10.0.0.11", steps=(Begin(), update), starts=starts, leaks=True)
    other = leaking(READ_METRICS, per_minute=draws.magnitude("leaked/min", 0.5, 3), begin=starts + 60)
    waits = replace(PAY_ORDER, locks="carts:7", share=draws.magnitude("share that waits", 0.3, 2))
    return Story(
        name="",
        family="leak blocks its own client",
        parts=(
            locked,
            orders(other, waits, pool=replace(sqlalchemy(20, 60), timeout=10), instances=((0, 2),)),
            *company(draws, minutes=30, calm=True),
        ),
        minutes=30,
        leaks=(
            Truth(
                client=ORDERS,
                site=locked.site,
                enough=1,
                warned_within=90,
                critical_within=160,
                has_rate=False,
                findings=3,
            ),
        ),
        diagnosis=(
            Says(ORDERS, starts, starts + 90, tuple(Verdict)),
            Says(ORDERS, starts + 90, REST, (Verdict.BLOCKED,)),
            Says(None, 0, REST, tuple(Verdict)),
        ),
        server=BIG,
    )


def pool_too_small(draws: Draws) -> Story:
    """Draw a pool that is too small for a load that breathes, or whose statements are slow."""
    size, takes = draws.whole("pool", 3, 12), draws.magnitude("statement s", 0.1, 45)
    # Between two requests, the process does something else. It takes a second at most, however slow the statements are.
    gap = min(1.0, takes * draws.magnitude("handing over", 0.001, 0.3))
    enough = size / (takes + gap)
    load, swing = draws.between("load", 1.05, 1.7), draws.between("swing", 0.0, 0.9)
    period, begin = draws.magnitude("period s", 20, 900), draws.between("from s", 120, 600)

    def breathing(time: float) -> float:
        if time < begin:
            return 0.2 * enough
        return enough * load * (1 + swing * (1 if (time / period) % 1 < 0.5 else -1))

    service = orders(
        requests=(Request(sql=READ_STOCK.sql, takes=about(takes)),),
        pool=replace(sqlalchemy(size, 0), timeout=max(5.0, 2 * takes), handing_over=about(gap)),
        traffic=breathing,
        instances=((0, 1),),
    )
    return Story(
        name="",
        family="pool too small",
        parts=(service,),
        minutes=40,
        server=BIG,
        queueing=frozenset({ORDERS}),
    )


def maintenance(draws: Draws) -> Story:
    """Draw a parallel dump, index builds, vacuums: neither their client nor the server is slow."""
    jobs, seconds = draws.whole("jobs", 1, 8), draws.magnitude("seconds", 200, 1800)
    work = draws.one_of(
        "work",
        {
            "dump": dump(starts=200, minutes=seconds / 60, jobs=max(2, jobs)),
            "index builds": _tool("alembic", "CREATE INDEX CONCURRENTLY orders_total ON orders (total)", seconds, jobs),
            "restore": _tool("pg_restore", "COPY public.orders (id, customer, status) FROM stdin;", seconds, jobs),
            "vacuumdb": _tool("vacuumdb", "VACUUM (ANALYZE) public.orders;", seconds, jobs),
            "vacuum by a cron job": _tool("nightly", "VACUUM (ANALYZE) orders", seconds, jobs),
            "reindex": _tool("maintenance", "REINDEX TABLE CONCURRENTLY orders", seconds, jobs),
            "clustering": _tool("", "CLUSTER orders USING orders_pkey", seconds, jobs),
        },
    )
    return Story(
        name="",
        family="maintenance",
        parts=(orders(), *work, *company(draws, minutes=40)),
        minutes=40,
        server=BIG,
        # A report beside may be slow.
        diagnosis=(Says(Client("shop", "app", "reports"), 0, REST, (Verdict.OK, Verdict.SLOW)),),
    )


def _tool(application: str, sql: str, seconds: float, jobs: int) -> tuple[Script, ...]:
    steps = (Run(sql, exactly(seconds)),)
    return (Script(application=application, user="owner", steps=steps, starts=200, copies=jobs),)


def cold_start(draws: Draws) -> Story:
    """Draw a leak that has been going on for ten minutes when the daemon is started, or `check` polls once."""
    request = draws.one_of("leaks", _LEAKS)
    keeps = draws.one_of("keeps", {"transaction": Keeps.TRANSACTION, "aborted": Keeps.ABORTED})
    leaky = leaking(request, per_minute=draws.magnitude("leaked/min", 0.6, 6), keeps=keeps)
    once = draws.happens("one poll", 0.5)  # which is at 600.003 s
    starts = 600.0 if once else draws.between("watched from s", 600, 1500)
    return Story(
        name="",
        family="cold start",
        parts=(orders(leaky, pool=sqlalchemy(40, 80)), *company(draws, minutes=40)),
        minutes=10 if once else starts / 60 + 10,
        interval=600.0 if once else 10.0,
        watched_from=starts,
        leaks=(
            Truth(
                client=ORDERS, site=request.site, found_within=starts + 11, has_rate=False,
                warned_by=600.003 if once else starts + 11,
            ),
        ),
        server=Postgres(max_connections=400),
    )  # fmt: skip


def cold_start_among_healthy(draws: Draws) -> Story:
    """Draw the first sight of a busy service, of which nothing leaks: pools at rest, short holds."""
    thinks = draws.magnitude("thinks s", 0.1, 30)
    service = orders(
        Request(sql=READ_METRICS.sql, thinks=about(thinks), share=0.3),
        pool=pool_with_reset(draws, 40),
        traffic=steady(draws.magnitude("requests/s", 0.5, 10)),
    )
    once = draws.happens("one poll", 0.5)
    starts = 600.0 if once else draws.between("watched from s", 600, 1500)
    return Story(
        name="",
        family="cold start, nothing leaks",
        parts=(service, *company(draws, minutes=40)),
        minutes=10 if once else starts / 60 + 10,
        interval=600.0 if once else 10.0,
        watched_from=starts,
        server=BIG,
    )


def leak_that_stops(draws: Draws) -> Story:
    """Draw a leak that stops: its route is switched off, or its client's own pool is full. It forecasts nothing."""
    per_minute = draws.magnitude("leaked/min", 1, 10)
    stops = draws.between("stops after s", 300, 900)
    full = draws.happens("its pool is full", 0.4)
    leaky = leaking(READ_ORDER, per_minute=per_minute, begin=120, end=REST if full else 120 + stops)
    leaked = max(4, int(per_minute * stops / 60))
    pool = sqlalchemy(leaked // 2, leaked - leaked // 2, timeout=5) if full else sqlalchemy(100, 100)
    # A leaked session is seen one limit later. Three usual gaps without another one are an end. A pool is full a little
    # later than that, because healthy requests use a part of it.
    flat = 120 + stops + 60 + 30 + (6 if full else 3) * 60 / per_minute
    return Story(
        name="",
        family="leak that stops",
        parts=(orders(leaky, pool=pool, instances=((0, 1),)), *company(draws, minutes=45, calm=True)),
        minutes=45,
        leaks=(Truth(client=ORDERS, site=READ_ORDER.site, has_rate=False),),
        server=Postgres(max_connections=leaked * 2 + 120),
        flat=((flat, REST),),
    )


def leak_to_the_end(draws: Draws) -> Story:
    """Draw a leak that fills the server, beside healthy services: its forecast is right long before."""
    per_minute, room = draws.magnitude("leaked/min", 0.7, 5), draws.whole("slots", 80, 200)
    leaky = leaking(
        READ_ORDER, per_minute=per_minute, begin=draws.between("from s", 60, 600), pool_forgets=True,
        collected=draws.one_of("collected", {"none": 0.0, "half": 0.5}),
        collected_ends=True,
    )  # fmt: skip
    net = per_minute * (0.5 if "collected half" in draws.drawn else 1.0)
    return Story(
        name="",
        family="leak to the end",
        parts=(orders(leaky, pool=sqlalchemy(5, 10)), *company(draws, minutes=60, calm=True)),
        minutes=min(150.0, 20 + room / net),
        leaks=(Truth(client=ORDERS, site=READ_ORDER.site, has_rate=False),),
        server=Postgres(max_connections=room),
        forecast=True,
    )
