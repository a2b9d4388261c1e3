"""What is held against the daemon after a fault: rules that hold for every fault, whatever was expected of it."""

from collections.abc import Callable, Iterator, Sequence

from tests.faults.fault import SLACK, Seen
from tests.faults.samples import Sample
from tests.faults.scene import INTERVAL, LEAKED
from tests.faults.witness import Witness

#: At any moment, whatever happens: one that we dropped and that the server has not noticed, and one that works.
MOST_SESSIONS = 2
#: Lines in the log for one fault and the recovery: each change is logged once.
MOST_LINES = 40


def complaints(seen: Witness) -> list[str]:
    """Say what the daemon should have said or done and did not; nothing if all was right."""
    return list(dict.fromkeys(complaint for check in CHECKS for complaint in check(seen)))


def _sessions(seen: Witness) -> Iterator[str]:
    if seen.most_sessions > MOST_SESSIONS:
        yield f"{seen.most_sessions} sessions of ours at one moment"
    if seen.samples[-1].ours != 1:
        yield f"{seen.samples[-1].ours} sessions of ours at the end"


def _answers(seen: Witness) -> Iterator[str]:
    excused = seen.fault.scrapes_may_fail or seen.fault.seen is Seen.UNANSWERED
    for sample in _with_daemon(seen):
        # A scrape may have waited for a second when the fault began.
        may_fail = excused and seen.making_at - 1 <= sample.at <= seen.gone_at + SLACK
        if sample.scrape is None and not may_fail:
            yield f"no answer {_when(seen, sample)}"
    if seen.fault.seen is Seen.UNANSWERED and all(sample.scrape for sample in seen.samples):
        yield "all scrapes were answered"


def _up(seen: Witness) -> Iterator[str]:
    """Whether `up` is right before the fault, when it is due, and two intervals after it."""
    due = seen.fault.due(seen.there_at)
    wanted = 0 if seen.fault.seen is Seen.NEVER else 1
    judged = 0
    for sample in seen.samples:
        if sample.scrape is None:
            continue
        if due <= sample.at < seen.ending_at - SLACK / 2 and seen.fault.seen is not Seen.UNANSWERED:
            judged += 1
            if sample.up != wanted:
                yield f"up is {sample.up} {_when(seen, sample)}"
        has_recovered = sample.at > seen.gone_at + 2 * INTERVAL + SLACK
        if has_recovered and sample.up != 1:
            yield f"up is {sample.up} {_when(seen, sample)}"
        if seen.fault.seen is Seen.ALWAYS and sample.up != 1:
            yield f"up is {sample.up} {_when(seen, sample)}"
    if not judged and not (seen.fault.scrapes_may_fail or seen.fault.seen is Seen.UNANSWERED):
        yield "no sample shows the fault"


def _reasons(seen: Witness) -> Iterator[str]:
    answered = [sample for sample in seen.samples if sample.scrape]
    first, last = answered[0].failures, answered[-1].failures
    for reason, count in last.items():
        more = count - first.get(reason, 0)
        if more > 0 and reason not in seen.fault.reasons:
            yield f"{more:.0f} polls failed with the reason {reason}"
    if seen.fault.seen is Seen.NEVER and sum(last.values()) == sum(first.values()):
        yield "no poll failed"


def _log(seen: Witness) -> Iterator[str]:
    if len(seen.events) > MOST_LINES:
        yield f"{len(seen.events)} lines in the log"


def _stale_series(seen: Witness) -> Iterator[str]:
    for sample in seen.samples:
        if sample.up == 0 and sample.series:
            yield f"{', '.join(sample.series)} while the server is not seen"
        if sample.up == 1 and not sample.series:
            yield "no series of sessions while the server is seen"


def _findings(seen: Witness) -> Iterator[str]:
    """One finding with all sessions, at all times while they live; closed once when they have died."""
    for sample in seen.samples:
        if sample.scrape is None or sample.up is None:
            continue
        opened, closed = sample.of_leak("leaks_opened_total"), sample.of_leak("leaks_closed_total")
        if seen.fault.sessions_survive and not seen.fault.before_start:
            found = (opened, closed, sample.of_leak("sessions_leaked_total"), sample.of_leak("leaked_sessions"))
            if found != (1, 0, LEAKED, LEAKED):
                yield "{:.0f} findings opened, {:.0f} closed, {:.0f} sessions ever, {:.0f} now".format(*found)
        elif opened > 1 or closed > opened:
            yield f"{opened:.0f} findings opened, {closed:.0f} closed"
    last = seen.samples[-1]
    wanted = (1, 0, LEAKED) if seen.fault.sessions_survive else (1, 1, 0)
    at_last = (last.of_leak("leaks_opened_total"), last.of_leak("leaks_closed_total"), last.of_leak("leaked_sessions"))
    if at_last != wanted:
        yield "at last {:.0f} findings opened, {:.0f} closed, {:.0f} sessions".format(*at_last)


def _what_is_said(seen: Witness) -> Iterator[str]:
    names = {name for name, _, _ in seen.events}
    yield from (f"{name} was not logged" for name in seen.fault.logged if name not in names)
    shown = [sample.scrape for sample in seen.samples if sample.scrape and seen.there_at <= sample.at < seen.ending_at]
    for name, value in seen.fault.shown.items():
        if not shown or shown[-1].value(name) != value:
            yield f"{name} is {shown[-1].value(name) if shown else None} and not {value:g}"


def _leftovers(seen: Witness) -> Iterator[str]:
    if seen.left:
        yield f"left over: {seen.left}"


def _with_daemon(seen: Witness) -> Sequence[Sample]:
    """Return the samples since the daemon was started."""
    return [sample for sample in seen.samples if not seen.fault.before_start or sample.at > seen.there_at]


def _when(seen: Witness, sample: Sample) -> str:
    if sample.at < seen.ending_at:
        return f"{sample.at - seen.there_at:.1f} s after the fault"
    return f"{sample.at - seen.gone_at:.1f} s after its end"


CHECKS: tuple[Callable[[Witness], Iterator[str]], ...] = (
    _sessions,
    _answers,
    _up,
    _reasons,
    _stale_series,
    _findings,
    _what_is_said,
    _log,
    _leftovers,
)
