"""The headline: the worst problems of all servers in one line, as they are now."""

from collections.abc import Collection, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from pgwatch_sessions.core.findings import FindingState, Severity, Verdict
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.web.ranked_findings import RankedFinding, rank_findings
from pgwatch_sessions.wording.amounts import counted, until
from pgwatch_sessions.wording.failures import FAILURES
from pgwatch_sessions.wording.labels import VERDICTS
from pgwatch_sessions.wording.lines import Tone
from pgwatch_sessions.wording.sentences import FULL, hidden_text

#: Problems named in the headline.
MAX_PROBLEMS = 3
#: Problems that are not a leak. Findings and outages have problems of their own.
_TROUBLE = frozenset({Verdict.BLOCKED, Verdict.SATURATED, Verdict.SLOW})


class ColouredText(NamedTuple):
    """A text and the tone that colours it."""

    text: str
    tone: Tone = Tone.PLAIN


class _Rank(IntEnum):
    """What comes first in the headline."""

    FULL = 0
    CANNOT_BE_POLLED = 1
    CRITICAL = 2
    TROUBLE = 3
    WARNING = 4
    HIDDEN = 5
    NOT_POLLED_YET = 6


class _Problem(NamedTuple):
    rank: _Rank
    text: str
    tone: Tone


def headline_of(states: Collection[ServerState]) -> ColouredText:
    """Name the worst problems in one line. `Nothing is leaking` is said only if every session can be seen."""
    ranked = rank_findings(states)
    problems = sorted((*_outages(states), *_urgent(states, ranked), *_unseen(states)), key=lambda each: each.rank)
    if problems:
        left_out = len(problems) - MAX_PROBLEMS
        more = f"; and {counted(left_out, 'more problem')}" if left_out > 0 else ""
        return ColouredText("; ".join(each.text for each in problems[:MAX_PROBLEMS]) + more, problems[0].tone)
    recovering = [each for each in ranked if each.finding.state is FindingState.RECOVERING]
    others = [
        *([counted(len(ranked) - len(recovering), "notice")] if len(ranked) > len(recovering) else []),
        *([f"{counted(len(recovering), 'finding')} recovering"] if recovering else []),
    ]
    return ColouredText(f"Nothing is leaking ({', '.join(others)})" if others else "Nothing is leaking", Tone.GOOD)


def _outages(states: Collection[ServerState]) -> Iterator[_Problem]:
    """Yield the servers that cannot be polled, or at which nobody can connect."""
    for state in states:
        if state.is_full:
            yield _Problem(_Rank.FULL, f"{state.server} {FULL}", Tone.BAD)
        elif state.failure:
            text = f"{state.server} cannot be polled: {FAILURES[state.failure.reason]}"
            yield _Problem(_Rank.CANNOT_BE_POLLED, text, Tone.BAD)


def _urgent(states: Collection[ServerState], ranked: Sequence[RankedFinding]) -> Iterator[_Problem]:
    """Yield the worst finding, and the servers that have another trouble than a leak."""
    urgent = [
        each
        for each in ranked
        if each.finding.state is not FindingState.RECOVERING and each.finding.severity is not Severity.NOTICE
    ]
    if urgent:
        yield _worst_finding(urgent, several_servers=len(states) > 1)
    for state in states:
        diagnosis = state.diagnoses.get(None)
        if diagnosis and diagnosis.verdict in _TROUBLE and not state.is_full:
            yield _Problem(_Rank.TROUBLE, f"{state.server}: {VERDICTS[diagnosis.verdict]}", Tone.WARN)


def _unseen(states: Collection[ServerState]) -> Iterator[_Problem]:
    """Yield what cannot be seen of servers that can be polled, or were not polled yet."""
    for state in states:
        if state.summary and state.summary.hidden:
            hidden = hidden_text(state.summary.hidden, len(state.summary.snapshot.sessions))
            yield _Problem(_Rank.HIDDEN, f"{state.server}: {hidden}", Tone.WARN)
        elif not state.polled:
            yield _Problem(_Rank.NOT_POLLED_YET, f"{state.server} was not polled yet", Tone.NOTE)


def _worst_finding(urgent: Sequence[RankedFinding], *, several_servers: bool) -> _Problem:
    finding, state = urgent[0]
    does = "leaks" if finding.is_leak else "holds connections"
    server = f" on {state.server}" if several_servers else ""
    ends = until(finding.exhaustion_seconds) if state.summary is not None and not state.is_full else ""
    forecast = f", out of connections {ends}" if ends else ""
    more = f", and {counted(len(urgent) - 1, 'more finding')}" if len(urgent) > 1 else ""
    text = f"{finding.key.client.short_name} {does} at {finding.site}{server}{forecast}{more}"
    if finding.severity is Severity.CRITICAL:
        return _Problem(_Rank.CRITICAL, text, Tone.BAD)
    return _Problem(_Rank.WARNING, text, Tone.WARN)
