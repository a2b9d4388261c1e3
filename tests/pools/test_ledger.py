import gc
import os
import threading
import tracemalloc
import weakref
from collections.abc import Hashable, Iterator
from time import monotonic
from typing import Any

import pytest

from pgwatch_sessions.pools.ledger import Entry, Ledger, WaitEnd, current_tags, numbers
from pgwatch_sessions.pools.snapshot import Limits


def a_ledger(*, idle: int = 0, **options: Any) -> Ledger:
    """Return a ledger of a pool with so many idle connections."""
    return Ledger("orders", kind="test", idle=lambda _: idle, **options)


def begin_wait(ledger: Ledger) -> int:
    """Wait for a connection, and return the number of the wait."""
    number = next(numbers)
    ledger.waits[number] = monotonic()
    return number


class Held:
    """What a borrower holds."""


@pytest.fixture
def ledger() -> Ledger:
    """Return a ledger of a pool of one connection and two in overflow."""
    return a_ledger(limits=lambda: Limits(size=1, max=3))


@pytest.fixture
def tagged() -> Iterator[None]:
    """Run a test inside a request."""
    token = current_tags.set(lambda: {"route": "/orders/{id}"})
    yield
    current_tags.reset(token)


def test_a_connection_that_is_out_is_used_and_an_open_one_that_is_not_is_idle() -> None:
    """The states are OpenTelemetry's: used and idle."""
    pool = {1, 2}
    ledger = Ledger("orders", kind="test", idle=lambda out: len(pool - out), limits=lambda: Limits(size=1, max=3))
    for connection in pool:
        ledger.borrow(connection)
    ledger.give_back(1)

    now = ledger.snapshot()
    assert (now.used, now.idle, now.overflow) == (1, 1, 1)
    assert (now.limits.max, now.use_time.count) == (3, 1)


def test_overflow_is_never_below_0(ledger: Ledger) -> None:
    """SQLAlchemy's own overflow() starts at minus the size of the pool."""
    assert ledger.snapshot().overflow == 0


def test_a_return_without_a_borrow_changes_nothing(ledger: Ledger) -> None:
    """SQLAlchemy reports a checkin without a checkout if a reconnect fails."""
    ledger.borrow(1)
    ledger.give_back(2)
    ledger.give_back(2)

    assert (ledger.snapshot().used, ledger.snapshot().use_time.count) == (1, 0)


def test_a_record_is_forgotten_when_the_pool_drops_it(ledger: Ledger) -> None:
    """A pool that is replaced drops its records without a word."""
    kept, dropped = Held(), Held()
    for record in (kept, dropped, kept):
        ledger.remember(record)
    del record, dropped

    assert ledger.records() == [kept]


@pytest.mark.usefixtures("tagged")
def test_a_borrower_has_a_line_tags_and_an_age(ledger: Ledger) -> None:
    """A leak's address is the line that borrowed, and the request that it did so for."""

    def getconn() -> None:
        ledger.borrow(1, ledger.where())

    getconn()

    (borrowed,) = ledger.borrowed()
    assert borrowed.site is not None
    assert borrowed.site.function == "test_a_borrower_has_a_line_tags_and_an_age"
    assert (borrowed.pool, borrowed.tags, borrowed.stack) == ("orders", {"route": "/orders/{id}"}, ())
    assert 0 <= borrowed.age < 60


def test_borrowers_are_listed_from_the_oldest_on_and_by_age(ledger: Ledger) -> None:
    """The oldest is the likeliest leak."""
    ledger.borrow(1)
    ledger.borrow(2)

    first, second = ledger.borrowed()
    assert first.number < second.number
    assert ledger.borrowed(older_than=60) == ()


@pytest.mark.parametrize("capture", ["stack", "off"])
def test_as_much_of_the_borrower_is_kept_as_was_asked_for(capture: str) -> None:
    """A stack costs more than a line, and nothing costs nothing."""
    ledger = a_ledger(capture=capture)

    def handler() -> None:
        ledger.borrow(1, ledger.where())

    handler()
    (borrowed,) = ledger.borrowed()
    functions = [site.function for site in borrowed.stack[:2]]
    if capture == "stack":
        assert functions == ["handler", "test_as_much_of_the_borrower_is_kept_as_was_asked_for"]
    else:
        assert (borrowed.site, functions) == (None, [])


def test_a_connection_whose_owner_is_gone_was_returned_by_the_garbage_collector() -> None:
    """Such a return is luck: the borrower forgot it."""
    ended: list[bool] = []
    ledger = a_ledger(on_return=lambda _, collected: ended.append(collected))
    kept, dropped = Held(), Held()
    ledger.borrow(1, owner=weakref.ref(kept))
    ledger.borrow(2, owner=weakref.ref(dropped))
    del dropped
    ledger.give_back(1)
    ledger.give_back(2)

    assert (ledger.snapshot().collected, ended) == (1, [False, True])


def test_a_detached_connection_is_listed_until_it_is_closed(ledger: Ledger) -> None:
    """The pool does not count it any more, but the server does."""
    held = Held()
    ledger.borrow(1, owner=weakref.ref(held))
    ledger.detach(1)

    assert [borrowed.detached for borrowed in ledger.borrowed()] == [True]
    assert (ledger.snapshot().used, ledger.snapshot().detached, ledger.snapshot().detached_open) == (0, 1, 1)
    ledger.close_detached(1)
    assert ledger.borrowed() == ()
    assert (ledger.snapshot().detached, ledger.snapshot().detached_open) == (1, 0)


def test_a_connection_that_is_detached_because_its_owner_is_gone_was_collected(ledger: Ledger) -> None:
    """SQLAlchemy's async engines do this."""
    held = Held()
    ledger.borrow(1, owner=weakref.ref(held))
    del held
    ledger.detach(1)

    assert (ledger.snapshot().collected, ledger.borrowed()) == (1, ())


@pytest.mark.parametrize("end", WaitEnd)
def test_a_wait_without_a_connection_is_counted_by_its_reason(ledger: Ledger, end: WaitEnd) -> None:
    """Only waits that got a connection are in the histogram."""
    ledger.end_wait(begin_wait(ledger), end)

    now = ledger.snapshot()
    assert (now.timed_out, now.cancelled_waits, now.failed_waits, now.pending, now.wait_time.count) == (
        end is WaitEnd.TIMED_OUT,
        end is WaitEnd.CANCELLED,
        end is WaitEnd.FAILED,
        0,
        0,
    )


def test_a_call_is_pending_until_it_has_a_connection(ledger: Ledger) -> None:
    """Pending requests are OpenTelemetry's."""
    wait = begin_wait(ledger)
    assert ledger.snapshot().pending == 1
    ledger.borrow(1, number=wait)
    assert (ledger.snapshot().pending, ledger.snapshot().wait_time.count) == (0, 1)


def test_a_shared_connection_is_used_once_however_many_have_it(ledger: Ledger) -> None:
    """SQLAlchemy's StaticPool gives all borrowers one connection."""
    ledger.borrow("first", connection="shared")
    ledger.borrow("second", connection="shared")

    assert (ledger.snapshot().used, len(ledger.borrowed())) == (1, 2)


def test_an_entry_that_the_pool_says_is_back_ends_at_the_next_reading() -> None:
    """A connection of asyncpg that is closed while it is out comes back without a release."""
    out = {1, 2}

    def still_out(key: Hashable, entry: Entry) -> bool:
        return key in out and entry.connection in out

    ledger = a_ledger(still_out=still_out)
    ledger.borrow(1)
    ledger.borrow(2)
    out.remove(1)

    assert (ledger.snapshot().used, ledger.snapshot().use_time.count) == (1, 1)


def test_the_child_of_a_fork_begins_with_nothing_and_its_parent_keeps_all(ledger: Ledger) -> None:
    """The connections are the parent's."""
    ledger.remember(ledger)
    ledger.borrow(1)
    wait = begin_wait(ledger)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        ledger.give_back(1)
        ledger.end_wait(wait, WaitEnd.TIMED_OUT)
        now = ledger.snapshot()
        os.write(
            writing,
            repr((now.used, now.idle, now.pending, now.use_time.count, now.timed_out, ledger.records())).encode(),
        )
        os._exit(0)
    os.waitpid(pid, 0)

    with os.fdopen(reading, "rb") as pipe:
        os.close(writing)
        assert pipe.read() == b"(0, 0, 0, 0, 0, [])"
    assert (ledger.snapshot().used, ledger.snapshot().pending) == (1, 1)


def test_a_duration_as_long_as_a_bound_is_in_the_bucket_of_that_bound(ledger: Ledger) -> None:
    """As in Prometheus, where a bound is called `le`."""
    for seconds in (301, 0.005, 0.0):
        ledger.created(seconds)

    created = ledger.snapshot().create_time
    assert (created.counts, created.sum) == ((1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 301.005)
    assert ledger.snapshot().create_time == created


def test_durations_do_not_pile_up_if_nobody_reads_them(ledger: Ledger) -> None:
    """An application may be instrumented without a scrape."""
    tracemalloc.start()
    for _ in range(20_000):
        ledger.borrow(1, number=begin_wait(ledger))
        ledger.give_back(1)
    more, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert more < 100_000
    assert (ledger.snapshot().wait_time.count, ledger.snapshot().use_time.count) == (20_000, 20_000)


def test_nothing_is_lost_while_threads_borrow_and_the_garbage_collector_returns(ledger: Ledger) -> None:
    """The owner is in a cycle, so a collection in any thread, at any line, ends the borrow."""

    def work(thread: int) -> None:
        for round_number in range(500):
            held = Held()
            held.cycle = held  # type: ignore[attr-defined]  # a cycle to collect
            key = (thread, round_number)
            ledger.borrow(key, owner=weakref.ref(held), number=begin_wait(ledger))
            weakref.finalize(held, ledger.give_back, key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()

    now = ledger.snapshot()
    assert (now.used, now.wait_time.count, now.use_time.count) == (0, 2000, 2000)


def test_an_error_of_ours_is_logged_once_and_ends_the_watching(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong numbers would be worse than none."""
    ledger.borrow(1)
    for _ in range(2):
        ledger.switch_off(ZeroDivisionError("an error"))

    assert (ledger.on, ledger.borrowed(), len(caplog.records)) == (False, (), 1)
    assert "the pool orders is no longer watched" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_tags_that_cannot_be_read_are_left_out(ledger: Ledger) -> None:
    """The function is the application's or a framework's."""

    def unreadable() -> dict[str, str]:
        raise KeyError("route")

    token = current_tags.set(unreadable)
    ledger.borrow(1)
    current_tags.reset(token)

    assert [borrowed.tags for borrowed in ledger.borrowed()] == [{}]
