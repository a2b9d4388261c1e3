"""Compare what the core reported about a story with what is true about it."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from pgwatch_sessions.core.events import LeakChanged, LeakOpened
from pgwatch_sessions.core.findings import Finding, Severity, Verdict
from pgwatch_sessions.core.model import Client
from tests.scenarios.expectations import WARM_UP, clients_of, expectations, warning_due
from tests.scenarios.forecasts import ForecastErrors, false_forecasts, forecast_errors
from tests.scenarios.playing import Played
from tests.scenarios.story import Truth

RATE_TOLERANCE = 0.2
DIAGNOSIS_RIGHT = 0.95
#: Leaked sessions that are needed to judge a rate.
_ENOUGH = 10
#: Seconds within which findings close after all leaked sessions are gone.
CLOSED_WITHIN = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How one leak was found. Times are seconds after its first leaked session; None means never."""

    truth: Truth
    after: float | None
    warned_after: float | None
    #: None if the server does not show the site, or nothing was found.
    site_right: bool | None
    #: When it was first critical.
    critical_after: float | None
    #: When the story ended.
    lasted: float
    #: Relative error; None if it is not judged or not reported.
    rate_error: float | None
    opened: int
    #: When the warning was due; infinite if none is.
    deadline: float

    @property
    def due(self) -> bool:
        """Whether it had to be found before the end of the story."""
        return min(self.deadline, self.truth.found_within if self.truth.comes_back else math.inf) <= self.lasted


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The results for one story. It can be sent from one process to another."""

    name: str
    family: str
    healthy: bool
    #: What was drawn at random for the story.
    drawn: str
    minutes: float
    #: Hours that the clients of the story ran, added up.
    client_hours: float
    #: The classic rules that fired at any time, for a leak after its first session.
    classic: frozenset[str]
    found: tuple[Found, ...]
    #: Warnings about clients that do not leak.
    false_warnings: tuple[Finding, ...]
    #: The same, of polls that were judged alone.
    false_warnings_alone: tuple[Finding, ...]
    #: Whether some single poll shows a warning about a client that leaks then.
    found_alone: bool
    forecast_errors: ForecastErrors
    #: Polls that forecast exhaustion although nothing grows any more.
    false_forecasts: tuple[float, ...]
    #: Number of verdicts judged, and of right ones.
    verdicts: int
    verdicts_right: int
    #: Findings opened in addition to one for each leak.
    flaps: int
    #: Findings still open long after their sessions were gone.
    left_open: tuple[Finding, ...]
    #: The wrong verdicts as text, for a person.
    wrong: tuple[str, ...]


def judge(played: Played) -> Judgement:
    """Judge a played story."""
    found = tuple(found for truth in played.story.leaks if (found := _found(played, truth)))
    verdicts, right, wrong = _verdicts(played)
    story = played.story
    first = min((entry.at for entry in played.ledger), default=0.0)
    return Judgement(
        name=story.name,
        family=story.family,
        healthy=story.healthy,
        drawn=story.drawn,
        minutes=story.minutes,
        client_hours=story.minutes / 60 * len(clients_of(story)),
        classic=frozenset(rule for seen in played.seen if seen.at >= first for rule in seen.classic),
        found=found,
        false_warnings=tuple(_false_warnings(played, _reported(played))),
        false_warnings_alone=tuple(_false_warnings(played, _alone(played))),
        found_alone=_found_alone(played),
        forecast_errors=forecast_errors(played),
        false_forecasts=tuple(false_forecasts(played)),
        verdicts=verdicts,
        verdicts_right=right,
        flaps=_flaps(played),
        left_open=tuple(_left_open(played)),
        wrong=wrong,
    )


def about(finding: Finding, truth: Truth) -> bool:
    """Return whether a finding is about this leak."""
    right = finding.key.client == truth.client and finding.key.kind in truth.kinds
    others = truth.site is not None and finding.site != truth.site
    return right and not others


def _reported(played: Played) -> Iterator[tuple[float, Finding]]:
    return ((at, event.finding) for at, event in played.events if isinstance(event, LeakOpened | LeakChanged))


def _alone(played: Played) -> Iterator[tuple[float, Finding]]:
    return ((seen.at, finding) for seen in played.seen for finding in seen.alone)


def _found_alone(played: Played) -> bool:
    return any(
        finding.severity is not Severity.NOTICE and finding.key.client in seen.leaking
        for seen in played.seen
        for finding in seen.alone
    )


def _found(played: Played, truth: Truth) -> Found | None:
    leaked = sorted(
        entry.at for entry in played.ledger if entry.client == truth.client and truth.site in {None, entry.site}
    )
    if not leaked:
        return None  # chance has it that nothing leaked
    first, deadline = leaked[0], warning_due(truth, leaked, hold_limit=played.story.policy.hold_limit)
    # A finding with the right client and a wrong site still counts as found: the site is judged separately.
    ours = [(at, f) for at, f in _reported(played) if f.key.client == truth.client and f.key.kind in truth.kinds]
    at_site = [(at, f) for at, f in ours if about(f, truth)]
    judged = at_site or ours
    warnings = [at for at, finding in judged if finding.severity.rank >= Severity.WARNING.rank]
    return Found(
        truth=truth,
        after=judged[0][0] - first if judged else None,
        warned_after=warnings[0] - first if warnings else None,
        site_right=bool(at_site) if ours and truth.site is not None else None,
        critical_after=next((at - first for at, f in judged if f.severity is Severity.CRITICAL), None),
        lasted=played.seen[-1].at - first,
        rate_error=_rate_error(played, truth, leaked) if truth.has_rate else None,
        opened=sum(about(finding, truth) for _, finding in played.opened),
        deadline=deadline - first,
    )


def _rate_error(played: Played, truth: Truth, leaked: list[float]) -> float | None:
    window = played.story.policy.growth_window
    errors = []
    for seen in played.seen:
        reported = sum(finding.rate_per_minute for finding in seen.findings if about(finding, truth))
        span = min(window, seen.at - leaked[0])
        recent = bisect_left(leaked, seen.at) - bisect_left(leaked, seen.at - span)
        if recent >= _ENOUGH and leaked[0] + 180 < seen.at <= leaked[-1] and not seen.failed:
            true = recent / span * 60
            errors.append(abs(reported - true) / true)
    return median(errors) if errors else None


def _false_warnings(played: Played, reported: Iterable[tuple[float, Finding]]) -> Iterator[Finding]:
    first = {truth.client: _first(played, truth.client) for truth in played.story.leaks}
    known = set()
    for at, finding in reported:
        client = finding.key.client
        is_true = client in first and at >= first[client]
        if finding.severity is Severity.NOTICE or is_true or client in played.story.excused:
            continue
        if (finding.key, finding.opened_at) not in known:
            known.add((finding.key, finding.opened_at))
            yield finding


def _first(played: Played, client: Client) -> float:
    return min((entry.at for entry in played.ledger if entry.client == client), default=float("inf"))


def _flaps(played: Played) -> int:
    starts = 1 + len(played.story.monitor_restarts)
    allowed: dict[Client, int] = {}
    for truth in played.story.leaks:
        allowed[truth.client] = allowed.get(truth.client, 0) + truth.findings * starts
    opened: dict[Client, int] = {}
    for at, finding in played.opened:
        # What is noticed before the leak begins is something else.
        if at >= _first(played, finding.key.client):
            opened[finding.key.client] = opened.get(finding.key.client, 0) + 1
    return sum(max(0, opened.get(client, 0) - number) for client, number in allowed.items())


def _left_open(played: Played) -> Iterator[Finding]:
    for truth in played.story.leaks:
        if truth.comes_back:
            continue  # it may come back for a long time
        gone = max((seen.at for seen in played.seen if truth.client in seen.leaking), default=0.0)
        gone = max([gone, *(entry.at for entry in played.ledger if entry.client == truth.client)])
        last = played.seen[-1]
        if last.at > gone + CLOSED_WITHIN:
            yield from (finding for finding in last.findings if about(finding, truth))


def _verdicts(played: Played) -> tuple[int, int, tuple[str, ...]]:
    expected = expectations(played)
    starts = (played.story.watched_from, *played.story.monitor_restarts)
    judged = right = 0
    wrong: dict[tuple[Client | None, Verdict | None], list[float]] = {}
    for seen in played.seen:
        if seen.failed or any(0 <= seen.at - start < WARM_UP for start in starts):
            continue
        for expectation in expected:
            if not expectation.begin <= seen.at < expectation.end:
                continue
            diagnosis = seen.diagnoses.get(expectation.client)
            judged += 1
            # A client without sessions needs no diagnosis.
            verdict = diagnosis.verdict if diagnosis else Verdict.OK if seen.absent(expectation.client) else None
            if verdict in expectation.verdicts:
                right += 1
            else:
                wrong.setdefault((expectation.client, verdict), []).append(seen.at)
    return judged, right, tuple(_complaint(client, verdict, at) for (client, verdict), at in wrong.items())


def _complaint(client: Client | None, verdict: Verdict | None, at: list[float]) -> str:
    who = client.application if client else "server"
    return f"{who} diagnosed as {verdict} {len(at)} times from {at[0]:.0f} to {at[-1]:.0f} s"
