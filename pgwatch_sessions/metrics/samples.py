"""The samples of each metric, from the published state of one server.

What a failed poll would have shown has no sample, so that its series disappear instead of going stale or zero.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pgwatch_sessions.core.findings import Diagnosis, Finding, Verdict
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import OTHER, Client, DatabaseCounters
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.clients import ClientSummary
from pgwatch_sessions.core.summaries.leak_counters import LeakCounters, LeakLabel
from pgwatch_sessions.core.summaries.poll import PollSummary

#: Sites of one server, and of one client, that have a label of their own. The others share the label `other`.
MAX_SITES = 100
MAX_SITES_OF_CLIENT = 20
#: Series of lines of code of one server. Further lines have none; the log, the page and JSON name them.
MAX_CODE_LINES = 100

#: Label values without that of `server`, and the value: a number, a Histogram, the labels of an info, or the states
#: of a stateset.
Sample = tuple[tuple[str, ...], Any]
Samples = Callable[[ServerState], Iterable[Sample]]


def of_clients(value: Callable[[ClientSummary], float | None]) -> Samples:
    """Sample one value of each client, if it has one."""
    return lambda state: (
        (summary.client, number) for summary in _visible_clients(state) if (number := value(summary)) is not None
    )


def of_states(values: Callable[[ClientSummary], Mapping[Any, float]]) -> Samples:
    """Sample one value of each client and state."""
    return lambda state: (
        ((*summary.client, name), value)
        for summary in _visible_clients(state)
        for name, value in values(summary).items()
    )


def _visible_clients(state: ServerState) -> Iterable[ClientSummary]:
    """Return the clients without hidden sessions. The numbers of the others would count some sessions only."""
    return [summary for summary in state.summary.clients if not summary.hidden] if state.summary else ()


def of_databases(value: Callable[[DatabaseCounters], float]) -> Samples:
    """Sample one counter of each database."""
    return lambda state: (
        ((counters.database,), value(counters))
        for counters in (state.summary.snapshot.databases if state.summary else ())
    )


def of_summary(value: Callable[[PollSummary], float]) -> Samples:
    """Sample one number of the last poll's summary."""
    return lambda state: [((), value(state.summary))] if state.summary else ()


def of_slots(value: Callable[[SlotUsage], float]) -> Samples:
    """Sample one number of each limit on connections."""
    return lambda state: (
        ((slots.scope, slots.name), value(slots)) for slots in (state.summary.slots if state.summary else ())
    )


def of_leaks(counts: Callable[[LeakCounters], Mapping[LeakLabel, int]]) -> Samples:
    """Sample one counter of leaks."""
    return lambda state: (((*label.client, label.kind), count) for label, count in counts(state.leak_counters).items())


def exhausted(state: ServerState) -> Iterator[Sample]:
    """Sample whether all ordinary slots are in use. A refusal for lack of slots proves it too."""
    if state.summary or state.is_full:
        yield (), float(state.is_full)


def exhaustion(state: ServerState) -> Iterator[Sample]:
    """Sample the seconds until each limit is reached."""
    yield from state.exhaustion.items() if state.summary else ()


def leaked_sessions(state: ServerState) -> Iterator[Sample]:
    """Sample the sessions in open findings."""
    held: dict[tuple[str, ...], int] = {}
    for finding, client, site in _findings_with_sites(state):
        labels = (*client, finding.key.kind, finding.severity, site)
        held[labels] = held.get(labels, 0) + len(finding.sessions)
    yield from held.items()


def leaked_sessions_by_line(state: ServerState) -> Iterator[Sample]:
    """Sample the sessions in open findings whose statements' tags name a line of code, of the first 100 lines."""
    held: dict[tuple[str, ...], int] = {}
    for finding, client, site in _findings_with_sites(state):
        for line, sessions in finding.code_lines if finding.sessions else ():
            labels = (*client, site, str(line))
            if labels in held or len(held) < MAX_CODE_LINES:
                held[labels] = held.get(labels, 0) + sessions
    yield from held.items()


def _findings_with_sites(state: ServerState) -> Iterator[tuple[Finding, Client, str]]:
    """Yield each finding and its labels, the worst first, so that the least important sites become `other`."""
    sites: dict[Client, set[str]] = {}
    for finding in sorted(state.findings, key=lambda each: (-each.severity.rank, -len(each.sessions), each.key)):
        client, site = state.labelled.label(finding.key.client), finding.site
        own = sites.setdefault(client, set())
        if site not in own and (len(own) >= MAX_SITES_OF_CLIENT or sum(map(len, sites.values())) >= MAX_SITES):
            site = OTHER
        own.add(site)
        yield finding, client, site


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
    """Sample the version of the server, and whether it is in recovery."""
    if state.summary:
        server = state.summary.snapshot.server
        recovery = {True: "true", False: "false", None: "unknown"}[server.in_recovery]
        yield (), {"version": version_text(server.version_num), "in_recovery": recovery}


def version_text(version_num: int | None) -> str:
    """Return a `server_version_num` such as 160014 as `16.14`."""
    return "unknown" if version_num is None else f"{version_num // 10000}.{version_num % 10000}"


def up(state: ServerState) -> Iterator[Sample]:
    """Sample whether the last poll succeeded. Before the first poll there is no sample."""
    if state.polled:
        yield (), float(state.failure is None)


def last_success(state: ServerState) -> Iterator[Sample]:
    """Sample the time of the last successful poll."""
    if state.last_success is not None:
        yield (), state.last_success


def transaction_holds(state: ServerState) -> Iterator[Sample]:
    """Sample the histogram of each database: how long its transactions were idle."""
    yield from (((database,), histogram) for database, histogram in state.hold_durations.items())


def polls(state: ServerState) -> Iterator[Sample]:
    """Sample the histogram of the durations of polls."""
    yield (), state.poll_durations


def recording_failures(state: ServerState) -> Iterator[Sample]:
    """Sample the polls that were not recorded, zero included."""
    yield (), state.recording_failures


def poll_failures(state: ServerState) -> Iterator[Sample]:
    """Sample the failed polls of each reason, zeros included."""
    yield from (((reason,), count) for reason, count in state.poll_failures.items())
