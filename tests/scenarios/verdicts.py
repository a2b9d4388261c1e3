"""The requirements for every story. Each violation is a complaint."""

from collections.abc import Iterator

from pgwatch_sessions.core.findings import Severity
from tests.scenarios.judging import DIAGNOSIS_RIGHT, RATE_TOLERANCE, Found, Judgement


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
    if any(each.is_wrong for each in judgement.forecast_errors.judged):
        yield f"forecast wrong by {' and '.join(f'{each.error:.0%}' for each in judgement.forecast_errors.judged)}"
    if judgement.false_forecasts:
        at = judgement.false_forecasts
        yield f"{len(at)} polls forecast exhaustion from {at[0]:.0f} to {at[-1]:.0f} s, although nothing grows"
    if judgement.verdicts_right < DIAGNOSIS_RIGHT * judgement.verdicts:
        share = judgement.verdicts_right / judgement.verdicts
        yield f"diagnosis right in {share:.0%}: " + "; ".join(judgement.wrong)


def missed(found: Found) -> str:
    """Say how a leak was missed, or found too late; return an empty text if it was found in time."""
    truth = found.truth
    if found.after is None:
        return "not found" if found.due else ""
    if found.after > truth.found_within:
        return f"found after {found.after:.0f} s, later than {truth.found_within:.0f} s"
    if truth.severity.rank < Severity.WARNING.rank:
        return ""
    if found.warned_after is None:
        return "no warning" if found.deadline <= found.lasted else ""
    if found.warned_after > found.deadline:
        return f"warning after {found.warned_after:.0f} s, later than {found.deadline:.0f} s"
    return ""


def _about(found: Found) -> Iterator[str]:
    truth = found.truth
    if missed(found):
        yield missed(found)
    if found.after is None:
        return
    critical = found.critical_after
    if truth.critical_within is not None and (critical is None or critical > truth.critical_within):
        after = "never critical" if critical is None else f"critical after {critical:.0f} s"
        yield f"{after}, instead of within {truth.critical_within:.0f} s"
    if truth.calm and critical is not None:
        yield f"critical after {critical:.0f} s, although nothing runs out"
    if found.site_right is False:
        yield "wrong site"
    if truth.has_rate and (found.rate_error is None or found.rate_error > RATE_TOLERANCE):
        yield f"rate wrong by {'?' if found.rate_error is None else f'{found.rate_error:.0%}'}"
