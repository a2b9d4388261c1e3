"""Families of stories about long holds that end by themselves, and come back."""

from dataclasses import replace

from pgwatch_sessions.core.findings import LeakKind, Severity, Verdict
from pgwatch_sessions.core.model import Client
from tests.scenarios.chance import about, between
from tests.scenarios.company import company
from tests.scenarios.draws import Draws, pool_with_reset
from tests.scenarios.pools import sqlalchemy
from tests.scenarios.requests import READ_METRICS, READ_ORDER, Keeps, Request, leaking
from tests.scenarios.scripts import Begin, End, Repeat, Run, Script, Think, batch
from tests.scenarios.server import Postgres
from tests.scenarios.shop import BIG, ORDERS, orders
from tests.scenarios.story import REST, Says, Story, Truth

#: Where the time goes: a statement and whether the transaction has written before.
WORK = {
    "background task": Request(sql="SELECT id, address FROM receipts WHERE order_id = $1", explicit=True),
    "stream": Request(sql="SELECT chunk FROM documents WHERE id = $1", explicit=True),
    "external call": Request(sql="UPDATE payments SET state = $1 WHERE id = $2", writes=True, explicit=True),
    "worker between two jobs": Request(sql="SELECT id, payload FROM jobs WHERE state = $1 LIMIT 1", explicit=True),
}
ANY_KIND = frozenset(LeakKind)
#: What nobody can say for sure.
EITHER = (Verdict.OK, Verdict.LEAKING)


def holds_that_come_back(draws: Draws) -> Story:
    """Draw a service whose transactions stay open for 1.2 to 6 hold limits, one at a time or dozens at once."""
    minutes, server = 75.0, Postgres(max_connections=300)
    length = draws.magnitude("holds s", 72, 300)
    at_once = draws.magnitude("at once", 0.4, 30)
    work = draws.one_of("work", WORK)
    per_minute = at_once * 60 / length
    held = replace(
        work, thinks=between(length, 1.2 * length), too_long=True, per_minute=per_minute,
        begin=draws.between("from s", 0, 900),
    )  # fmt: skip
    if draws.happens("irregular", 0.5):
        # As part of the traffic, they come at random.
        held = replace(held, per_minute=None, begin=0.0, share=3 * per_minute / 60 / 4.0)
    service = orders(
        held,
        pool=pool_with_reset(draws, 20 + int(2.5 * at_once)),
        instances=((0, draws.whole("instances", 1, 3)),),
        deploys=(2400.0,) if draws.happens("deploy", 0.3) else (),
    )
    return Story(
        name="",
        family="holds that come back",
        parts=(service, *company(draws, minutes=minutes, calm=True)),
        minutes=minutes,
        leaks=(_comes_back(work),),
        server=server,
        # From twice its length on, as many end as begin.
        flat=((1800.0, REST),),
    )


def _comes_back(work: Request, client: Client = ORDERS) -> Truth:
    return Truth(
        client=client, site=work.site, warned_within=600, has_rate=False, calm=True, comes_back=True
    )  # fmt: skip


def holds_once_an_hour(draws: Draws) -> Story:
    """Draw a job with a hold of some minutes once in half an hour or an hour. It is evidence, whatever its severity."""
    length, every = draws.between("hold s", 90, 300), draws.between("every min", 25, 60) * 60
    work = draws.one_of("work", WORK)
    steps = (Begin(), Run(work.sql, writes=work.writes), Think(between(length, 1.2 * length), too_long=True), End())
    job = Script(application="sync", steps=steps, starts=draws.between("from s", 60, 900), every=every)
    return Story(
        name="",
        family="one hold an hour",
        parts=(orders(), job, *company(draws, minutes=130, calm=True)),
        minutes=130,
        leaks=(
            Truth(
                client=job.client, site=job.site, severity=Severity.NOTICE, has_rate=False, calm=True, comes_back=True,
                findings=6,
            ),
        ),
        diagnosis=(Says(job.client, 0, REST, EITHER), Says(None, 0, REST, EITHER)),
        server=BIG,
        flat=((600.0, REST),),
    )  # fmt: skip


def holds_beside_a_leak(draws: Draws) -> Story:
    """Draw holds that come back, and a leak that begins later, at the same site or at another one."""
    length, at_once = draws.magnitude("holds s", 72, 300), draws.magnitude("at once", 1, 8)
    work = draws.one_of("work", WORK)
    held = replace(work, thinks=between(length, 1.2 * length), too_long=True, per_minute=at_once * 60 / length)
    leaks = draws.between("leak from s", 900, 1800)
    same = draws.happens("at the same site", 0.5)
    leaky = leaking(
        work if same else READ_ORDER, per_minute=draws.magnitude("leaked/min", 0.2, 3), begin=leaks, end=leaks + 1500
    )
    truths = (_comes_back(work), Truth(client=ORDERS, site=READ_ORDER.site, has_rate=False, warned_within=600))
    return Story(
        name="",
        family="holds beside a leak",
        parts=(orders(held, leaky, pool=sqlalchemy(40, 80)), *company(draws, minutes=60, calm=True)),
        minutes=60,
        # At one site, one finding has the sessions of both.
        leaks=(replace(truths[0], calm=False),) if same else truths,
        server=Postgres(max_connections=400),
    )


def nightly_batch(draws: Draws) -> Story:
    """Draw a batch with one session that works outside the database for minutes, once or twice: no warning."""
    length = draws.magnitude("hold s", 90, 900)
    work = Run("UPDATE ledger SET closed = true WHERE month = $1", writes=True)
    night = Script(
        application="closing",
        steps=(Begin(), Repeat(draws.whole("rounds", 1, 2), (work, Think(about(length)))), End()),
        starts=draws.between("starts s", 60, 1200),
    )
    return Story(
        name="",
        family="nightly batch",
        parts=(orders(), night, *company(draws, minutes=50)),
        minutes=50,
        server=BIG,
    )


def batch_in_one_transaction(draws: Draws) -> Story:
    """Draw batches that work through one long transaction, with pauses shorter than the hold limit."""
    work = batch(
        starts=draws.between("starts s", 30, 600), rounds=10_000, copies=draws.whole("copies", 1, 6),
        works=about(draws.magnitude("works s", 0.05, 5)), thinks=between(0.1, draws.magnitude("thinks s", 0.3, 40)),
        application="import",
    )  # fmt: skip
    return Story(
        name="",
        family="batch in one transaction",
        parts=(orders(), work, *company(draws, minutes=45)),
        minutes=45,
        server=BIG,
    )


def thread_keeps_transaction(draws: Draws) -> Story:
    """Draw threads that keep one session and one transaction through all their requests, beside healthy ones."""
    service = orders(
        leaking(
            READ_METRICS, per_minute=draws.magnitude("threads/min", 0.2, 2), begin=300, end=1500, keeps=Keeps.THREAD,
            goes_on_after=between(0.5, draws.magnitude("next request s", 2, 40)),
        ),
        pool=sqlalchemy(20, 40, driver=draws.one_of("driver", {"psycopg": "psycopg", "asyncpg": "asyncpg"})),
        instances=((0, 1),),
    )  # fmt: skip
    return Story(
        name="",
        family="transaction kept by a thread",
        parts=(service, *company(draws, minutes=60)),
        minutes=60,
        leaks=(
            Truth(
                client=ORDERS, site=None, kinds=ANY_KIND, enough=3, found_within=900, warned_within=900, has_rate=False
            ),
        ),
        server=BIG,
    )  # fmt: skip


def streams_reach_a_level(draws: Draws) -> Story:
    """Draw streams shorter than the hold limit that take many slots, and level off at rate x duration."""
    length, slots = draws.between("streams s", 20, 50), draws.whole("slots", 100, 300)
    part = draws.between("part of the slots", 0.3, 0.7)
    stream = replace(WORK["stream"], thinks=about(length), per_minute=part * slots * 60 / length, begin=300)
    return Story(
        name="",
        family="level of streams",
        parts=(
            orders(stream, pool=sqlalchemy(slots, slots), instances=((0, 1),)),
            *company(draws, minutes=30, calm=True),
        ),
        minutes=30,
        # They arrive so regularly that the pool opens hardly more than the level: nobody can see whether it could.
        diagnosis=(
            Says(ORDERS, 300, REST, (Verdict.OK, Verdict.SATURATED)),
            Says(None, 300, REST, (Verdict.OK, Verdict.SATURATED)),
        ),
        server=Postgres(max_connections=slots + 40),
        flat=((300 + 3 * length + 60, REST),),
    )


def holds_that_began_together(draws: Draws) -> Story:
    """Draw a burst of holds that all end: it may be reported, but it forecasts nothing."""
    length = draws.magnitude("holds s", 90, 500)
    number = draws.whole("holds", 4, 25)
    work = draws.one_of("work", WORK)
    seconds = draws.between("began within s", 1, 15)
    burst = replace(
        work, thinks=about(length), per_minute=number * 60 / seconds, begin=600,
        end=600 + seconds,
    )  # fmt: skip
    return Story(
        name="",
        family="holds that began together",
        parts=(orders(burst), *company(draws, minutes=30, calm=True)),
        minutes=30,
        excused=frozenset({ORDERS}),
        diagnosis=(Says(ORDERS, 600, 1500, tuple(Verdict)), Says(None, 600, 1500, tuple(Verdict))),
        server=Postgres(max_connections=150),
        flat=((630.0, REST),),
    )
