"""The summary of a replay as text: each server's polls, and a table of all findings."""

from collections.abc import Iterator, Sequence

from pgwatch_sessions.commands.replay.report import FindingSummary, ReplayReport, ServerTally
from pgwatch_sessions.core.findings import Verdict
from pgwatch_sessions.terminal import SEVERITY_COLOURS, Colour, Paint, table
from pgwatch_sessions.wording.amounts import counted, duration, moment
from pgwatch_sessions.wording.labels import HOW_HELD, client_name, printable
from pgwatch_sessions.wording.sentences import diagnosis_text

#: Findings in the table, the worst of all.
_MAX_FINDINGS = 200
_HEADER = (
    "worst", "client", "sessions are", "site", "most sessions", "most per minute", "opened", "closed",
    "would have paged",
)  # fmt: skip


def summary_lines(report: ReplayReport, paint: Paint) -> Iterator[str]:
    """Yield each server's polls and verdict, then all findings, the worst first."""
    yield ""
    for name, server in sorted(report.servers.items()):
        yield f"{paint(printable(name), Colour.BOLD)}: {_polls(server)}"
        diagnosis = server.state.diagnoses.get(None)
        if diagnosis is not None:
            colour = Colour.GREEN if diagnosis.verdict is Verdict.OK else Colour.YELLOW
            yield f"  diagnosis at the end: {paint(diagnosis_text(diagnosis), colour)}"
    yield ""
    findings = report.findings()
    if not findings:
        yield paint("No findings.", Colour.GREEN)
        return
    yield from _table(findings[:_MAX_FINDINGS], paint)
    if len(findings) > _MAX_FINDINGS:
        yield f"and {len(findings) - _MAX_FINDINGS} more"
    yield ""
    yield from _conclusion(findings)


def _polls(server: ServerTally) -> str:
    failures = ", ".join(f"{number} {reason}" for reason, number in server.failures.most_common())
    failed = f", {server.failures.total()} of them failed ({failures})" if failures else ""
    length = duration(server.last_at - server.first_at)
    return f"{counted(server.polls, 'poll')}{failed}; {moment(server.first_at)} to {moment(server.last_at)}, {length}"


def _table(findings: Sequence[FindingSummary], paint: Paint) -> Iterator[str]:
    header, *rows = table(_HEADER, [_row(each) for each in findings])
    yield paint(header, Colour.BOLD)
    for each, row in zip(findings, rows, strict=True):
        yield paint(row, SEVERITY_COLOURS[each.worst])


def _row(summary: FindingSummary) -> Sequence[str]:
    finding = summary.finding
    return (
        summary.worst,
        client_name(finding.key.client),
        HOW_HELD[finding.key.kind],
        printable(finding.site),
        str(summary.most_sessions),
        f"{summary.highest_rate:.1f}",
        moment(finding.opened_at),
        "open" if summary.closed_at is None else moment(summary.closed_at),
        "no" if summary.paged_at is None else moment(summary.paged_at),
    )


def _conclusion(findings: Sequence[FindingSummary]) -> Iterator[str]:
    open_at_end = sum(each.closed_at is None for each in findings)
    yield f"{counted(len(findings), 'finding')}, {open_at_end} open at the end; the worst is {findings[0].worst}."
    pages = sorted(each.paged_at for each in findings if each.paged_at is not None)
    match pages:
        case []:
            yield "Nobody would have been paged."
        case [only]:
            yield f"Would have paged once, at {moment(only)}."
        case [first, *_]:
            yield f"Would have paged {len(pages)} times, first at {moment(first)}."
