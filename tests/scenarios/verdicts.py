"""The requirements for every story. Each violation is a complaint."""

from collections.abc import Iterator

from pgwatch_sessions.core.findings import Severity
from tests.scenarios.judging import DIAGNOSIS_RIGHT, FORECAST_TOLERANCE, RATE_TOLERANCE, Found, Judgement


def complaints(judgement: Judgement) -> tuple[str, ...]:
    """Return all complaints, one line each."""
    return tuple(_all(judgement))


def _all(judgement: Judgement) -> Iterator[str]:
    for found in judgement.found:
        yield from (f"{found.truth.site or 'leak'}: {complaint}" for complaint in _about(found))
    for finding in judgement.false_warnings:
        client, kind, site = finding.key
        yield f"false {finding.severity}: {kind} of {client.application} at {site!r}"
    for finding in judgement.false_warnings_alone:
        yield f"false {finding.severity} from one poll: {finding.key.client.application} at {finding.key.site!r}"
    if judgement.flaps:
        yield f"{judgement.flaps} findings too many"
    for finding in judgement.left_open:
        yield f"left open: {finding.key.site!r}"
    if judgement.played.story.forecast:
        error = judgement.forecast_error
        if error is None or error > FORECAST_TOLERANCE:
            yield f"forecast wrong by {'?' if error is None else f'{error:.0%}'}"
    if judgement.verdicts_right < DIAGNOSIS_RIGHT * judgement.verdicts:
        share = judgement.verdicts_right / judgement.verdicts
        yield f"diagnosis right in {share:.0%}: " + "; ".join(judgement.wrong)


def _about(found: Found) -> Iterator[str]:
    truth = found.truth
    if found.after is None:
        yield "not found"
        return
    if found.after > truth.found_within:
        yield f"found after {found.after:.0f} s, later than {truth.found_within:.0f} s"
    if truth.severity.rank >= Severity.WARNING.rank:
        deadline = found.second_leak + truth.warned_within
        if found.warned_after is None:
            yield "no warning"
        elif found.warned_after > deadline:
            yield f"warning after {found.warned_after:.0f} s, later than {deadline:.0f} s"
    if found.site_right is False:
        yield "wrong site"
    if truth.has_rate and (found.rate_error is None or found.rate_error > RATE_TOLERANCE):
        yield f"rate wrong by {'?' if found.rate_error is None else f'{found.rate_error:.0%}'}"
