"""Healthy stories of pools: what each kind leaves on the server, busy and quiet."""

from dataclasses import replace

from tests.scenarios.chance import about, changing, rush, steady, then_silence
from tests.scenarios.pools import (
    asyncpg_pool,
    autocommit,
    django,
    node_postgres,
    per_request,
    pgbouncer,
    pgx,
    psycopg_pool,
    sqlalchemy,
)
from tests.scenarios.requests import READ_METRICS, READ_STOCK, Request
from tests.scenarios.shop import BIG, orders
from tests.scenarios.story import Story

ASYNCPG = asyncpg_pool(10, 20)
#: No driver sends it: only its place, right after each connect, tells what it is.
OWN_SETUP = "SELECT shop.begin_session($1)"
SLOW = Request(sql=READ_METRICS.sql, takes=about(1))
SURGE = rush(3, 60, begin=300, end=900)

POOLS = (
    Story(name="QueuePool under steady traffic", family="pools", parts=(orders(pool=sqlalchemy(20, 10)),)),
    Story(name="QueuePool, rush hour and near silence", family="pools", parts=(orders(traffic=SURGE),), minutes=40),
    Story(name="asyncpg pool under steady traffic", family="pools", parts=(orders(pool=ASYNCPG),)),
    Story(
        name="asyncpg pool, rush hour and near silence",
        family="pools",
        parts=(orders(pool=asyncpg_pool(10, 20, transactions=True), traffic=SURGE),),
        minutes=40,
    ),
    Story(
        name="asyncpg pool of old, idle ones closed after five minutes",
        family="pools",
        parts=(orders(pool=asyncpg_pool(2, 20, idle=300), traffic=rush(1, 40, begin=300, end=400)),),
        minutes=30,
    ),
    Story(
        name="prewarmed pools that nobody uses",
        family="pools",
        parts=(orders(pool=asyncpg_pool(20, 20), traffic=steady(0.001)),),
        minutes=120,
    ),
    Story(
        name="prewarmed pool with a set-up of its own, hardly used",
        family="pools",
        parts=(orders(pool=replace(asyncpg_pool(20, 20), setup=(OWN_SETUP,)), traffic=steady(0.5)),),
        minutes=60,
    ),
    Story(
        name="prewarmed pool with a set-up of its own, first seen when it is old",
        family="pools",
        parts=(orders(pool=replace(asyncpg_pool(20, 20), setup=(OWN_SETUP,)), traffic=steady(0.5)),),
        minutes=60,
        watched_from=1200.0,
    ),
    Story(
        name="psycopg_pool recycles and shrinks",
        family="pools",
        parts=(orders(pool=psycopg_pool(4, 20), traffic=SURGE),),
        minutes=90,
    ),
    Story(
        name="AUTOCOMMIT, steady and then silent",
        family="pools without reset",
        parts=(orders(pool=autocommit(), traffic=then_silence(8, at=600)),),
        minutes=40,
    ),
    Story(
        name="AUTOCOMMIT, rush hour and near silence",
        family="pools without reset",
        parts=(orders(pool=autocommit(20, 10), traffic=SURGE),),
        minutes=40,
    ),
    Story(
        name="AUTOCOMMIT, a second one at the same address after the first fell quiet",
        family="pools without reset",
        parts=(
            orders(SLOW, pool=autocommit(), traffic=changing((0, 8), (240, 0.1), (360, 0))),
            orders(SLOW, pool=autocommit(), traffic=changing((600, 2), (660, 8), (900, 1))),
        ),
        minutes=40,
    ),
    Story(
        name="pgx pool recycled hourly",
        family="pools without reset",
        parts=(orders(pool=pgx(15), traffic=changing((0, 20), (1200, 1), (9000, 20))),),
        minutes=180,
    ),
    Story(
        name="node-postgres closes after ten seconds",
        family="pools without reset",
        parts=(orders(pool=node_postgres(), traffic=SURGE),),
        minutes=30,
    ),
    Story(
        name="Django's persistent connections",
        family="pools without reset",
        parts=(orders(pool=django(8), workers=2, traffic=changing((0, 6), (900, 0.05))),),
        minutes=60,
    ),
    Story(
        name="a pool that grows slowly to its size, without reset",
        family="pools without reset",
        parts=(
            orders(
                Request(sql=READ_METRICS.sql, takes=about(3)),
                pool=pgx(30),
                traffic=changing((0, 1), (600, 2), (1200, 4), (1800, 6), (2400, 8)),
            ),
        ),
        minutes=60,
    ),
    Story(
        name="connection per request",
        family="no pool",
        parts=(orders(Request(sql=READ_STOCK.sql, takes=about(0.8)), pool=per_request(), traffic=steady(10)),),
    ),
    Story(
        name="blank application name, nothing leaks",
        family="pools",
        parts=(
            orders(application="", pool=ASYNCPG, traffic=SURGE),
            orders(application="", user="other", network="10.0.6"),
        ),
        minutes=30,
    ),
    Story(
        name="PgBouncer in front, nothing leaks",
        family="pooler",
        parts=(orders(pool=pgbouncer(20), pooler="10.8.0.1", adds_host=True, traffic=SURGE),),
        minutes=40,
    ),
    Story(
        name="application names with random suffixes",
        family="pools",
        parts=(orders(suffixed=True, workers=4, deploys=(300, 900)),),
        minutes=30,
        server=BIG,
    ),
)
