"""Healthy stories of clients other than services: consoles, dumps, batches, migrations, locks."""

from dataclasses import replace

from pgwatch_sessions.core.findings import Verdict
from pgwatch_sessions.core.model import Client
from tests.scenarios.chance import about, exactly, steady
from tests.scenarios.pools import sqlalchemy
from tests.scenarios.requests import PAY_ORDER, READ_STOCK, Request
from tests.scenarios.scripts import (
    Begin,
    End,
    Repeat,
    Run,
    Script,
    Think,
    batch,
    console,
    cron,
    dump,
    leader,
    listener,
    migration,
    report,
    row_holder,
)
from tests.scenarios.shop import ORDERS, orders
from tests.scenarios.story import REST, Says, Story

SMALL = sqlalchemy(5, 5)
DUMPING = (
    Says(Client("shop", "backup", "pg_dump"), 0, REST, (Verdict.OK, Verdict.SLOW)),
    Says(None, 0, REST, (Verdict.OK, Verdict.SLOW)),
)
QUEUED = (Verdict.BLOCKED, Verdict.OK, Verdict.SLOW, Verdict.SATURATED)
#: A request that reads the table for which a migration needs an exclusive lock.
READS_ORDERS = Request(sql="SELECT id, status FROM orders WHERE id = $1", locks="orders", shared=True)

CDC = Script(application="Debezium General", user="cdc", steps=(Run("SELECT * FROM pg_publication"),), stays=True)
VACUUM = Script(
    application="maintenance", user="owner", steps=(Run("VACUUM (ANALYZE) orders", exactly(900)),), starts=120
)
# Six processes, each with three transactions and long client work between two statements.
_ROUND = (
    Begin(),
    Run("SELECT * FROM ledger WHERE month = $1"),
    Think(about(120)),
    Run("UPDATE ledger SET closed = true", writes=True),
    End(),
)
PARALLEL_BATCH = Script(application="closing", steps=(Repeat(3, _ROUND),), starts=120, copies=6)

VISITORS = (
    Story(
        name="listener, leader and an open console",
        family="singletons",
        parts=(orders(), listener(), leader(), console()),
        minutes=180,
    ),
    Story(
        name="listeners and leaders of the service itself",
        family="singletons",
        parts=(orders(), listener("orders"), leader("orders"), listener("orders")),
        minutes=60,
    ),
    Story(
        name="console left open in a transaction",
        family="singletons",
        parts=(orders(), console(in_transaction=True)),
        minutes=60,
    ),
    Story(name="logical replication's own sessions", family="singletons", parts=(orders(), CDC), minutes=60),
    Story(name="dump", family="tools", parts=(orders(), *dump()), minutes=25, diagnosis=DUMPING),
    Story(name="dump in parallel", family="tools", parts=(orders(), *dump(jobs=4)), minutes=25, diagnosis=DUMPING),
    Story(
        name="long vacuum",
        family="tools",
        parts=(orders(), VACUUM),
        minutes=25,
        diagnosis=(
            Says(Client("shop", "owner", "maintenance"), 0, REST, (Verdict.OK, Verdict.SLOW)),
            Says(None, 0, REST, (Verdict.OK, Verdict.SLOW)),
        ),
    ),
    Story(name="batch that thinks inside one transaction", family="batches", parts=(orders(), batch())),
    Story(
        name="hours of batch in one transaction",
        family="batches",
        parts=(orders(), batch(rounds=2000)),
        minutes=90,
    ),
    Story(
        name="six batch processes with long client work",
        family="batches",
        parts=(orders(), PARALLEL_BATCH),
        minutes=25,
    ),
    Story(
        name="nightly batches, one every ten minutes",
        family="batches",
        parts=(orders(), batch(every=600, rounds=40, copies=3)),
        minutes=60,
    ),
    Story(name="cron job every quarter of a minute", family="batches", parts=(orders(), cron(every=15))),
    Story(
        name="report of 75 seconds",
        family="slow queries",
        parts=(orders(), report(starts=300, seconds=75)),
        diagnosis=(
            Says(Client("shop", "app", "reports"), 300, REST, (Verdict.OK, Verdict.SLOW)),
            Says(None, 300, REST, (Verdict.OK, Verdict.SLOW)),
        ),
    ),
    Story(
        name="reports of half an hour",
        family="slow queries",
        parts=(orders(), *(report(starts=300 + 60 * i, seconds=1800) for i in range(5))),
        minutes=45,
        diagnosis=(
            Says(Client("shop", "app", "reports"), 300, 900, (Verdict.OK, Verdict.SLOW)),
            Says(Client("shop", "app", "reports"), 900, 2100, (Verdict.SLOW,)),
            Says(Client("shop", "app", "reports"), 2100, REST, (Verdict.OK, Verdict.SLOW)),
            Says(None, 300, REST, (Verdict.OK, Verdict.SLOW)),
        ),
    ),
    Story(
        name="row lock held for 50 seconds",
        family="locks",
        parts=(
            orders(replace(PAY_ORDER, locks="orders:1", share=0.3), pool=SMALL, traffic=steady(3)),
            row_holder(starts=300, seconds=50),
        ),
        diagnosis=(
            Says(ORDERS, 300, 315, QUEUED),
            Says(ORDERS, 315, 350, (Verdict.BLOCKED,)),
            Says(ORDERS, 350, 420, QUEUED),
            Says(Client("shop", "app", "backoffice"), 300, 420, tuple(Verdict)),
            Says(None, 300, 420, QUEUED),
        ),
    ),
    Story(
        name="migration with a short lock pile-up",
        family="locks",
        parts=(
            orders(READS_ORDERS, traffic=steady(2)),
            report(starts=300, seconds=25, locks="orders"),
            migration(starts=305),
        ),
        diagnosis=(Says(ORDERS, 300, 420, QUEUED), Says(None, 300, 420, QUEUED)),
    ),
    Story(
        name="migration that gives up and tries again",
        family="locks",
        parts=(
            orders(READS_ORDERS, traffic=steady(2)),
            report(starts=300, seconds=120, locks="orders"),
            replace(migration(starts=305, waits_at_most=3), every=20),
        ),
        diagnosis=(Says(ORDERS, 300, 480, QUEUED), Says(None, 300, 480, QUEUED)),
    ),
    Story(
        name="two services read and write stock with row locks of a moment",
        family="locks",
        parts=(
            orders(replace(PAY_ORDER, locks="stock:1", thinks=about(0.1))),
            orders(replace(READ_STOCK, locks="stock:1", thinks=about(0.1)), application="stock", network="10.0.5"),
        ),
    ),
)
