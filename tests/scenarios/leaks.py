"""Stories with one leak: transactions and connections that are never returned to the pool."""

from dataclasses import replace

from pgwatch_sessions.core.model import Client
from tests.scenarios.chance import long_tailed, steady
from tests.scenarios.leaks_in_company import IN_COMPANY
from tests.scenarios.pools import asyncpg_pool, autocommit, per_request, pgx, sqlalchemy
from tests.scenarios.requests import (
    LIST_ORDERS,
    PAY_ORDER,
    READ_METRICS,
    READ_ORDER,
    READ_STOCK,
    Keeps,
    Request,
    leaking,
    tagged,
)
from tests.scenarios.scripts import cron
from tests.scenarios.shop import BIG, CONNECTION, GROWTH, ORDERS, orders, truth
from tests.scenarios.story import Story, Truth

#: Stories for the ways in which a leaked session can look on the server.
WHAT_THE_SERVER_SHOWS = (
    Story(
        name="held after SELECT, SQLAlchemy and asyncpg",
        family="transaction held",
        parts=(orders(leaking(READ_ORDER, per_minute=12, begin=300), pool=sqlalchemy(20, 40, driver="asyncpg")),),
        leaks=(truth(READ_ORDER, fast=True),),
        server=BIG,
    ),
    Story(
        name="held after SELECT, SQLAlchemy and psycopg",
        family="transaction held",
        parts=(orders(leaking(READ_ORDER, per_minute=12, begin=300)),),
        leaks=(truth(READ_ORDER, fast=True),),
        server=BIG,
    ),
    Story(
        name="held after UPDATE of a row",
        family="transaction held",
        parts=(orders(leaking(replace(PAY_ORDER, sql="UPDATE carts SET paid = true WHERE id = $1"), per_minute=3)),),
        leaks=(Truth(client=ORDERS, site="UPDATE carts"),),
    ),
    Story(
        name="failed statement never rolled back",
        family="transaction held",
        parts=(orders(leaking(READ_METRICS, per_minute=12, begin=300, keeps=Keeps.ABORTED)),),
        leaks=(truth(READ_METRICS, fast=True),),
        server=BIG,
    ),
    Story(
        name="transaction started and nothing more, asyncpg",
        family="transaction held",
        parts=(orders(leaking(READ_METRICS, per_minute=4, keeps=Keeps.BEGUN), pool=asyncpg_pool(10, 40)),),
        leaks=(truth(None),),
    ),
    Story(
        name="asyncpg pool never released",
        family="connection held",
        parts=(
            orders(leaking(READ_METRICS, per_minute=12, begin=300, keeps=Keeps.CONNECTION), pool=asyncpg_pool(10, 60)),
        ),
        leaks=(truth(READ_METRICS, kinds=CONNECTION, fast=True),),
        server=BIG,
    ),
    Story(
        name="asyncpg connect never closed",
        family="connection held",
        parts=(orders(leaking(READ_METRICS, per_minute=6, keeps=Keeps.CONNECTION), pool=per_request()),),
        leaks=(truth(READ_METRICS, kinds=GROWTH),),
        forecast=True,
    ),
    Story(
        name="AUTOCOMMIT session kept",
        family="connection held",
        parts=(
            orders(leaking(READ_METRICS, per_minute=4, begin=300, keeps=Keeps.CONNECTION), pool=autocommit(20, 40)),
        ),
        # In the first window of a process, growth on a large server may be what it needs. Then two quarters of a window
        # must show that it goes on.
        leaks=(truth(READ_METRICS, kinds=GROWTH, warned_within=900.0),),
        minutes=30,
        server=BIG,
    ),
)

ORDINARY = (
    Story(
        name="all requests of a route leak: the pool is gone within seconds",
        family="burst",
        parts=(
            orders(leaking(READ_ORDER, begin=300), pool=sqlalchemy(5, 10), traffic=steady(20), instances=((0, 1),)),
        ),
        leaks=(truth(READ_ORDER, has_rate=False, fast=True),),
    ),
    Story(
        name="asyncpg pool gone within seconds",
        family="burst",
        parts=(
            orders(
                leaking(READ_METRICS, begin=300, keeps=Keeps.CONNECTION),
                pool=asyncpg_pool(10, 20),
                traffic=steady(20),
            ),
        ),
        leaks=(truth(READ_METRICS, kinds=CONNECTION, has_rate=False, fast=True),),
    ),
    Story(
        name="asyncpg transaction begun, exception, never released",
        family="burst",
        parts=(
            orders(
                leaking(READ_METRICS, begin=300),
                pool=asyncpg_pool(10, 20, transactions=True),
                traffic=steady(20),
            ),
        ),
        leaks=(truth(READ_METRICS, has_rate=False, fast=True),),
    ),
    Story(
        name="engine made for each request",
        family="growth",
        parts=(orders(leaking(READ_STOCK, per_minute=6, keeps=Keeps.ENGINE), pool=per_request()),),
        leaks=(truth(None, kinds=GROWTH),),
        forecast=True,
    ),
    Story(
        name="cron job that never disconnects",
        family="growth",
        parts=(replace(cron(every=30), leaks=True), orders()),
        # In the first window of a process, growth may be what it needs.
        leaks=(truth(None, Client("shop", "app", "reminders"), kinds=GROWTH, warned_within=600.0),),
        minutes=60,
    ),
    Story(
        name="pgx connections never released",
        family="connection held",
        parts=(orders(leaking(READ_METRICS, per_minute=3, begin=600, keeps=Keeps.CONNECTION), pool=pgx(40)),),
        # The pool may have used a session again after a long rest. This lesson counts for up to a window.
        leaks=(truth(READ_METRICS, kinds=GROWTH, found_within=1200.0, warned_within=1200.0),),
        minutes=30,
    ),
    Story(
        name="route in the statement's comment",
        family="transaction held",
        parts=(orders(leaking(tagged(READ_ORDER, "/orders/{id}"), per_minute=12, begin=300)),),
        leaks=(truth(tagged(READ_ORDER, "/orders/{id}"), fast=True),),
        server=BIG,
    ),
    Story(
        name="one in ten minutes",
        family="slow leak",
        parts=(orders(leaking(READ_ORDER, per_minute=0.1)),),
        leaks=(truth(READ_ORDER, has_rate=False),),
        minutes=120,
    ),
    Story(
        name="two in a hundred requests, pool 20+10",
        family="slow leak",
        parts=(orders(leaking(READ_ORDER, share=0.2, chance=0.05), pool=sqlalchemy(20, 10), traffic=steady(3)),),
        leaks=(truth(READ_ORDER, has_rate=False),),
        minutes=30,
    ),
    Story(
        name="connect leak of one a minute",
        family="slow leak",
        parts=(orders(leaking(READ_METRICS, per_minute=1, keeps=Keeps.CONNECTION), pool=asyncpg_pool(2, 400)),),
        leaks=(truth(READ_METRICS, kinds=CONNECTION),),
        minutes=120,
        forecast=True,
    ),
    Story(
        name="collector returns nine in ten",
        family="garbage collected",
        parts=(orders(leaking(READ_ORDER, per_minute=40, collected=0.9)),),
        leaks=(truth(READ_ORDER),),
    ),
    Story(
        name="collected AsyncSessions end their connections",
        family="garbage collected",
        parts=(
            orders(
                leaking(READ_ORDER, per_minute=30, collected=0.85, collected_ends=True),
                pool=sqlalchemy(20, 40, driver="asyncpg"),
            ),
        ),
        leaks=(truth(READ_ORDER),),
        server=BIG,
    ),
    Story(
        name="cancelled requests: the pool says none is out",
        family="transaction held",
        parts=(orders(leaking(LIST_ORDERS, per_minute=4, begin=120, pool_forgets=True), pool=sqlalchemy(5, 10)),),
        leaks=(truth(LIST_ORDERS),),
        minutes=30,
        forecast=True,
    ),
    Story(
        name="external call that never answers",
        family="transaction held",
        parts=(
            orders(
                Request(sql=READ_STOCK.sql, thinks=long_tailed(4, at_most=50), share=0.2),
                leaking(READ_METRICS, per_minute=2, begin=300),
                pool=sqlalchemy(10, 20),
            ),
        ),
        leaks=(truth(READ_METRICS),),
        minutes=30,
    ),
    Story(
        name="statement differs each time",
        family="transaction held",
        parts=(
            orders(
                *(
                    leaking(
                        replace(READ_ORDER, sql=f"SELECT * FROM items WHERE id = $1 AND kind{i} = $2"), per_minute=0.7
                    )
                    for i in range(6)
                )
            ),
        ),
        leaks=(truth(None, findings=6, has_rate=False),),
    ),
    Story(
        name="two sessions a request, one forgotten",
        family="transaction held",
        parts=(orders(leaking(READ_ORDER, per_minute=5), replace(PAY_ORDER, per_minute=5), workers=2),),
        leaks=(truth(READ_ORDER),),
        server=BIG,
    ),
)

LEAKS = (*WHAT_THE_SERVER_SHOWS, *ORDINARY, *IN_COMPANY)
