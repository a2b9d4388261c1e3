"""What a replay came to, for people."""

from collections.abc import Iterator, Sequence

from pgwatch_sessions.commands.replay.ledger import Case, Course, Ledger
from pgwatch_sessions.core.findings import Verdict
from pgwatch_sessions.terminal import SEVERITY_COLOURS, Colour, Paint, table
from pgwatch_sessions.wording.amounts import counted, duration, moment
from pgwatch_sessions.wording.labels import HOW_HELD, client_name, printable
from pgwatch_sessions.wording.sentences import diagnosis_text

#: Findings that the table holds, the worst of all.
_MAX_CASES = 200
_HEADER = ("worst", "client", "held", "site", "most", "a minute", "found", "closed", "would have paged")


def summary_lines(ledger: Ledger, paint: Paint) -> Iterator[str]:
    """Yield each server's polls and verdict, and all findings, the worst first."""
    cases = ledger.cases()
    yield ""
    for name, course in sorted(ledger.courses.items()):
        yield f"{paint(printable(name), Colour.BOLD)}: {_polls(course)}"
        diagnosis = course.state.diagnoses.get(None)
        if diagnosis is not None:
            yield f"  in the end: {paint(diagnosis_text(diagnosis), _colour(diagnosis.verdict))}"
    yield ""
    if not cases:
        yield paint("Nothing was found.", Colour.GREEN)
        return
    yield from _table(cases[:_MAX_CASES], paint)
    if len(cases) > _MAX_CASES:
        yield f"and {len(cases) - _MAX_CASES} more"
    yield ""
    yield from _conclusion(cases)


def _colour(verdict: Verdict) -> Colour:
    return Colour.GREEN if verdict is Verdict.OK else Colour.YELLOW


def _polls(course: Course) -> str:
    failures = ", ".join(f"{number} {reason}" for reason, number in course.failures.most_common())
    failed = f", {course.failures.total()} of them failed ({failures})" if failures else ""
    length = duration(course.last_at - course.first_at)
    return f"{counted(course.polls, 'poll')}{failed}; {moment(course.first_at)} to {moment(course.last_at)}, {length}"


def _table(cases: Sequence[Case], paint: Paint) -> Iterator[str]:
    header, *rows = table(_HEADER, [_row(case) for case in cases])
    yield paint(header, Colour.BOLD)
    for case, row in zip(cases, rows, strict=True):
        yield paint(row, SEVERITY_COLOURS[case.worst])


def _row(case: Case) -> Sequence[str]:
    finding = case.finding
    return (
        case.worst,
        client_name(finding.key.client),
        HOW_HELD[finding.key.kind],
        printable(finding.key.site),
        str(case.most_sessions),
        f"{case.highest_rate:.1f}",
        moment(finding.opened_at),
        "open" if case.closed_at is None else moment(case.closed_at),
        "no" if case.paged_at is None else moment(case.paged_at),
    )


def _conclusion(cases: Sequence[Case]) -> Iterator[str]:
    open_at_end = sum(case.closed_at is None for case in cases)
    yield f"{counted(len(cases), 'finding')}, {open_at_end} open at the end; the worst is {cases[0].worst}."
    pages = sorted(case.paged_at for case in cases if case.paged_at is not None)
    if pages:
        yield f"Would have paged {'once' if len(pages) == 1 else f'{len(pages)} times'}, first at {moment(pages[0])}."
    else:
        yield "Would have paged nobody."
