"""The values of each metric, derived from one server's published state.

What the last poll could not see has no sample: absence is said, not faked.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from pgwatch_sessions.core.findings import Diagnosis, Verdict
from pgwatch_sessions.core.model import OTHER, Client, DatabaseCounters, Failure, FailureReason, LimitScope
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.clients import ClientSummary
from pgwatch_sessions.core.summaries.leak_counters import LeakCounters, LeakLabel
from pgwatch_sessions.core.summaries.poll import PollSummary

#: Sites of one server that get a label; the rest is `other`.
MAX_SITES = 100

#: Label values after the server's, and the value: a number, a Histogram, the labels of an info, or which states are on.
Sample = tuple[tuple[str, ...], Any]
Samples = Callable[[ServerState], Iterable[Sample]]


def of_clients(
    value: Callable[[ClientSummary], float | None],
) -> Callable[[ServerState], Iterator[Sample]]:
    """Sample one value a client; a client with hidden sessions has none, since it would be half the truth."""

    def samples(state: ServerState) -> Iterator[Sample]:
        for summary in state.summary.clients if state.summary else ():
            number = None if summary.hidden else value(summary)
            if number is not None:
                yield summary.client, number

    return samples


def of_states(
    values: Callable[[ClientSummary], Mapping[Any, float]],
) -> Callable[[ServerState], Iterator[Sample]]:
    """Sample values by client and state."""

    def samples(state: ServerState) -> Iterator[Sample]:
        for summary in state.summary.clients if state.summary else ():
            if not summary.hidden:
                yield from (((*summary.client, name), value) for name, value in values(summary).items())

    return samples


def of_databases(value: Callable[[DatabaseCounters], float]) -> Callable[[ServerState], Iterator[Sample]]:
    """Sample a counter of each database."""

    def samples(state: ServerState) -> Iterator[Sample]:
        for counters in state.summary.snapshot.databases if state.summary else ():
            yield (counters.database,), value(counters)

    return samples


def of_view(value: Callable[[PollSummary], float]) -> Callable[[ServerState], Iterator[Sample]]:
    """Sample one number of the last poll."""

    def samples(state: ServerState) -> Iterator[Sample]:
        if state.summary:
            yield (), value(state.summary)

    return samples


def exhausted(state: ServerState) -> Iterator[Sample]:
    """Sample whether ordinary slots are gone: seen, or proven by a refusal."""
    if state.summary:
        yield (), float(state.summary.exhausted)
    elif _refused_for_lack_of_slots(state.failure):
        yield (), 1.0


def _refused_for_lack_of_slots(failure: Failure | None) -> bool:
    return (
        failure is not None
        and failure.reason is FailureReason.EXHAUSTED
        and failure.exhausted_scope is LimitScope.SERVER
    )


def slots(number: Literal["capacity", "used"]) -> Callable[[ServerState], Iterator[Sample]]:
    """Sample one side of each limit on connections."""

    def samples(state: ServerState) -> Iterator[Sample]:
        for slots in state.summary.slots if state.summary else ():
            yield (slots.scope, slots.name), float(getattr(slots, number))

    return samples


def exhaustion(state: ServerState) -> Iterator[Sample]:
    """Sample the forecast of each limit."""
    yield from state.exhaustion.items() if state.summary else ()


def leaked_sessions(state: ServerState) -> Iterator[Sample]:
    """Sample the sessions in open findings: worst first, so that what is folded into `other` matters least."""
    held: dict[tuple[str, ...], int] = {}
    sites: set[tuple[Client, str]] = set()
    for finding in sorted(state.findings, key=lambda each: (-each.severity.rank, -len(each.sessions), each.key)):
        client, site = state.labelled.label(finding.key.client), finding.key.site
        if (client, site) not in sites and len(sites) >= MAX_SITES:
            site = OTHER
        sites.add((client, site))
        labels = (*client, finding.key.kind, finding.severity, site)
        held[labels] = held.get(labels, 0) + len(finding.sessions)
    yield from held.items()


def of_leaks(
    counts: Callable[[LeakCounters], Mapping[LeakLabel, int]],
) -> Callable[[ServerState], Iterator[Sample]]:
    """Sample a counter of leaks."""

    def samples(state: ServerState) -> Iterator[Sample]:
        for label, count in counts(state.leak_counters).items():
            yield (*label.client, label.kind), count

    return samples


def server_diagnosis(state: ServerState) -> Iterator[Sample]:
    """Sample the verdict on the server."""
    if None in state.diagnoses:
        yield (), _verdict_states(state.diagnoses[None])


def client_diagnoses(state: ServerState) -> Iterator[Sample]:
    """Sample the verdict on each client."""
    for client, diagnosis in state.diagnoses.items():
        if client is not None:
            yield client, _verdict_states(diagnosis)


def _verdict_states(diagnosis: Diagnosis) -> dict[str, bool]:
    return {verdict: verdict is diagnosis.verdict for verdict in Verdict}


def server_info(state: ServerState) -> Iterator[Sample]:
    """Sample what the server is."""
    if state.summary:
        server = state.summary.snapshot.server
        recovery = {True: "true", False: "false", None: "unknown"}[server.in_recovery]
        yield (), {"version": version_text(server.version_num), "in_recovery": recovery}


def version_text(version_num: int | None) -> str:
    """Write a `server_version_num` (160014) as people do (16.14)."""
    return "unknown" if version_num is None else f"{version_num // 10000}.{version_num % 10000}"


def up(state: ServerState) -> Iterator[Sample]:
    """Sample whether the last poll succeeded; nothing before the first."""
    if state.polled:
        yield (), float(state.failure is None)


def last_success(state: ServerState) -> Iterator[Sample]:
    """Sample when a poll last succeeded."""
    if state.last_success is not None:
        yield (), state.last_success


def holds(state: ServerState) -> Iterator[Sample]:
    """Sample the histogram of ended holds of each database."""
    yield from (((database,), histogram) for database, histogram in state.hold_durations.items())


def polls(state: ServerState) -> Iterator[Sample]:
    """Sample the histogram of the polls' durations."""
    yield (), state.poll_durations


def poll_failures(state: ServerState) -> Iterator[Sample]:
    """Sample the failed polls, every reason included."""
    yield from (((reason,), count) for reason, count in state.poll_failures.items())
