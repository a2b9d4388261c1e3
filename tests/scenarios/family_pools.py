"""Families of stories about sessions that rest: pools without a reset, minimum sizes, several engines, and leaks."""

from dataclasses import replace

from pgwatch_sessions.core.findings import Verdict
from tests.scenarios.chance import about, changing, steady
from tests.scenarios.company import company
from tests.scenarios.draws import Draws, draw_setup, draw_traffic, pool_with_reset, pool_without_reset
from tests.scenarios.pools import asyncpg_pool, autocommit, node_postgres, per_request, sqlalchemy
from tests.scenarios.requests import LIST_ORDERS, PAY_ORDER, READ_METRICS, READ_ORDER, Keeps, Request, leaking
from tests.scenarios.server import Postgres
from tests.scenarios.services import Service
from tests.scenarios.shop import BIG, GROWTH, ORDERS, orders
from tests.scenarios.story import REST, Says, Story, Truth

#: What cannot be judged before anything was seen to be used again.
_SLOW_READ = Request(sql="SELECT region, total FROM sales WHERE day = $1")


def set_up_and_never_used(draws: Draws) -> Story:
    """Draw pools that open their minimum, send their set-up, and wait for traffic that hardly comes."""
    least = draws.whole("minimum", 4, 20)
    resets = draws.happens("resets", 0.5)
    pool = asyncpg_pool(least, least + 10) if resets else pool_without_reset(draws, least + 10)
    pool = replace(
        pool,
        least=least,
        setup=draw_setup(draws),
        lifetime=draws.one_of("renewed", {"no": None, "10 min": 600.0, "30 min": 1800.0}),
    )
    busy = draws.magnitude("requests/s", 0.002, 5)
    service = orders(
        pool=pool,
        traffic=steady(busy) if draws.happens("traffic from the start", 0.5) else changing((900, busy)),
        workers=draws.whole("workers", 1, 3),
        instances=((0, 1), (draws.between("scale-out s", 300, 2400), draws.whole("instances", 1, 4))),
        deploys=(draws.between("deploy s", 600, 2400),),
    )
    return Story(
        name="",
        family="set up and never used",
        parts=(service, *company(draws, minutes=60)),
        minutes=60,
        server=Postgres(max_connections=600),
        restarts=_restarts(draws),
    )


def pools_at_rest(draws: Draws) -> Story:
    """Draw a service with a pool without a reset, under any traffic: never a warning."""
    minutes = draws.one_of("minutes", {"40": 40.0, "75": 75.0, "120": 120.0})
    service = _service_without_reset(draws, minutes=minutes, most=draws.whole("most", 3, 30))
    return Story(
        name="",
        family="pools without a reset",
        parts=(service, *company(draws, minutes=minutes)),
        minutes=minutes,
        server=BIG,
        watched_from=draws.one_of("watched from", {"the start": 0.0, "20 min": 1200.0}),
        restarts=_restarts(draws),
        # A peak may need all of a small pool for a moment.
        diagnosis=(
            Says(ORDERS, 0, REST, (Verdict.OK, Verdict.SATURATED)),
            Says(None, 0, REST, (Verdict.OK, Verdict.SATURATED)),
        ),
    )


def _restarts(draws: Draws) -> tuple[tuple[float, float], ...]:
    """Draw whether the server restarts, so that every session is new."""
    return ((draws.between("at s", 400, 2000), 15.0),) if draws.happens("server restarts", 0.15) else ()


def _service_without_reset(draws: Draws, *, minutes: float, most: int, **fields: object) -> Service:
    """Draw its pool, its traffic, how many of its requests end with COMMIT, and its deploys."""
    slow = replace(
        _SLOW_READ, takes=about(draws.magnitude("slow read s", 0.05, 5)), share=draws.magnitude("their share", 0.2, 4)
    )
    share = draws.one_of("commits", {"none": 0.0, "a third": 1.0, "most": 6.0})
    commits = replace(PAY_ORDER, explicit=True, share=share)
    requests = (LIST_ORDERS, READ_ORDER, slow, commits)
    return orders(
        **{
            "pool": pool_without_reset(draws, most),
            "traffic": draw_traffic(draws, minutes=minutes),
            "workers": draws.whole("workers", 1, 6),
            "lopsided": draws.happens("lopsided", 0.5),
            "instances": ((0, draws.whole("instances", 1, 3)),),
            "deploys": (draws.between("deploy min", 5, minutes) * 60,) if draws.happens("deploy", 0.4) else (),
            "requests": (*requests, *fields.pop("leaks", ())),  # type: ignore[misc]  # a tuple of requests
        }
        | fields
    )


def leaks_without_reset(draws: Draws) -> Story:
    """Draw a leak of connections out of a pool without a reset: rows never closed, connect() without release()."""
    per_minute = draws.magnitude("leaked/min", 0.15, 5)
    most = int(45 * per_minute) + 15
    leaky = leaking(READ_METRICS, per_minute=per_minute, begin=draws.between("from s", 0, 1200), keeps=Keeps.CONNECTION)
    service = _service_without_reset(
        draws, minutes=60, most=most, leaks=(leaky,), instances=((0, 1),), workers=1, deploys=(),
        traffic=draw_traffic(draws, minutes=60, least=0.5),
    )  # fmt: skip
    # Nobody can see a leak out of connections that were open before: nothing grows.
    service = replace(service, pool=replace(service.pool, least=min(service.pool.least, 3)))
    return _leak(draws, service, family="leaks without a reset")


def connections_never_closed(draws: Draws) -> Story:
    """Draw a leak beside the pool: an engine for each request, connect() without close(), threads that keep theirs."""
    how = draws.one_of(
        "how",
        {
            "engine per request": (per_request(), Keeps.ENGINE),
            "engine per request, autocommit": (per_request(transactions=False), Keeps.CONNECTION),
            "connect() without close()": (per_request(transactions=False), Keeps.CONNECTION),
            "threads keep them": (replace(node_postgres(1000), size=1000, idle_timeout=None), Keeps.CONNECTION),
        },
    )
    leaky = leaking(
        READ_METRICS, per_minute=draws.magnitude("leaked/min", 0.15, 6), begin=draws.between("from s", 0, 1200),
        keeps=how[1],
    )  # fmt: skip
    pool = (pool_with_reset if draws.happens("resets", 0.5) else pool_without_reset)(draws, draws.whole("most", 5, 20))
    service = orders(pool=pool, traffic=draw_traffic(draws, minutes=60, least=0.5), instances=((0, 1),))
    leaker = Service(
        application="orders",
        pool=replace(how[0], setup=draw_setup(draws)),
        requests=(leaky,),
        traffic=steady(0),
        instances=((0, 1),),
    )
    return _leak(draws, service, leaker, family="connections never closed")


def _leak(draws: Draws, *parts: Service, family: str) -> Story:
    site = None if family == "connections never closed" else READ_METRICS.site
    return Story(
        name="",
        family=family,
        parts=(*parts, *company(draws, minutes=60)),
        minutes=60,
        # Within two windows from when there are four of them.
        leaks=(
            Truth(
                client=ORDERS, site=site, kinds=GROWTH, enough=4, found_within=2400, warned_within=1200, has_rate=False
            ),
        ),
        server=Postgres(max_connections=800),
        diagnosis=(Says(None, 0, REST, (Verdict.OK, Verdict.SATURATED, Verdict.LEAKING)),),
    )  # fmt: skip


def engines_made_when_needed(draws: Draws) -> Story:
    """Draw a process with several engines, each made when first needed, used for a moment, and then at rest."""
    pool = draws.one_of(
        "pool", {"QueuePool": sqlalchemy(5, 10), "AUTOCOMMIT": autocommit(5, 10), "node-postgres": node_postgres(10)}
    )
    pool = replace(pool, setup=draw_setup(draws), idle_timeout=None)
    workers = draws.whole("workers", 1, 4)
    number, spread = draws.whole("engines", 3, 12), draws.between("made within s", 30, 550)
    engines = []
    for _ in range(number):
        begin = 60 + draws.random.uniform(0, spread)
        used_for = draws.random.choice((3.0, 20.0, 120.0))
        engines.append(
            orders(
                pool=pool, workers=workers, instances=((0, 1),), traffic=changing((begin, 2.0), (begin + used_for, 0.0))
            )
        )
    late = draws.between("a late one s", 900, 2400)
    engines.append(
        orders(pool=pool, workers=workers, instances=((0, 1),), traffic=changing((late, 1.0), (late + 5, 0.0)))
    )
    if draws.happens("one stays busy", 0.6):
        engines.append(
            orders(pool=pool, workers=workers, instances=((0, 1),), traffic=steady(draws.magnitude("busy/s", 0.05, 10)))
        )
    return Story(
        name="",
        family="engines made when needed",
        parts=(*engines, *company(draws, minutes=60)),
        minutes=60,
        server=BIG,
    )


def collected_in_time(draws: Draws) -> Story:
    """Draw forgotten connections of which the garbage collector closes most: the level grows slowly, or not at all."""
    collected = draws.one_of("collected", {"all": 1.0, "nine in ten": 0.9})
    per_minute = draws.magnitude("forgotten/min", 6, 40)
    leaky = leaking(
        READ_ORDER, per_minute=per_minute, begin=120, collected=collected, collected_ends=True,
        collected_after=about(draws.magnitude("collected after s", 3, 25)),
    )  # fmt: skip
    # Without a leak, what is not collected is a moment's level. What stays forecasts the end, and nothing else does.
    stays = per_minute * (1 - collected) > 0.01
    return Story(
        name="",
        family="garbage collected",
        parts=(orders(leaky, pool=sqlalchemy(100, 200), instances=((0, 1),)), *company(draws, minutes=60, calm=True)),
        minutes=60,
        leaks=(Truth(client=ORDERS, site=READ_ORDER.site, has_rate=False),) if stays else (),
        server=Postgres(max_connections=160),
        forecast=stays,
        flat=() if stays else ((600.0, REST),),
    )
