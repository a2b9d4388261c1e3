"""The result of a check as JSON. Its keys are a contract."""

from collections.abc import Iterable
from typing import Any

from pgwatch_sessions.commands.check.result import CheckResult
from pgwatch_sessions.core.findings import Finding, Severity
from pgwatch_sessions.core.summaries.clients import ClientSummary
from pgwatch_sessions.core.summaries.not_judged import NotJudgedReason
from pgwatch_sessions.recording.times import text_of
from pgwatch_sessions.wording.advice import advice_of
from pgwatch_sessions.wording.events import client_fields, finding_fields
from pgwatch_sessions.wording.not_judged import not_judged_fields
from pgwatch_sessions.wording.runbooks import published
from pgwatch_sessions.wording.sentences import finding_sentence


def document_of(results: Iterable[CheckResult], *, fail_on: Severity, code: int) -> dict[str, Any]:
    """Return everything that the check found, as JSON values."""
    return {"exit_code": code, "fail_on": str(fail_on), "servers": [_server(result, fail_on) for result in results]}


def _server(result: CheckResult, fail_on: Severity) -> dict[str, Any]:
    state = result.state
    diagnosis = state.diagnoses.get(None)
    return {
        "server": state.server,
        "exit_code": result.exit_code(fail_on),
        "taken_at": text_of(result.polled_at) if state.last_summary else None,
        "polls": result.polls,
        "failed_polls": result.failed_polls,
        "failure": {"reason": str(state.failure.reason), "detail": state.failure.detail} if state.failure else None,
        "hidden_sessions": result.hidden,
        "diagnosis": str(diagnosis.verdict) if diagnosis else "unknown",
        "slots": [
            {"scope": str(slots.scope), "name": slots.name, "capacity": slots.capacity, "used": slots.used}
            for slots in (state.last_summary.slots if state.last_summary else ())
        ],
        "clients": [_client(summary, result) for summary in result.clients],
        "findings": [_finding(finding, result) for finding in result.findings],
        "not_judged": [not_judged_fields(each) for each in result.not_judged],
        "too_young_to_judge": [
            {**client_fields(each.client), "sessions": each.sessions, "age_seconds": round(each.seconds or 0.0, 3)}
            for each in result.not_judged
            if each.reason is NotJudgedReason.YOUNG and each.in_transaction
        ],
    }


def _client(summary: ClientSummary, result: CheckResult) -> dict[str, Any]:
    diagnosis = result.state.diagnoses.get(summary.client)
    return {
        **client_fields(summary.client),
        "sessions": summary.sessions,
        "hidden_sessions": summary.hidden,
        "states": {str(state): number for state, number in summary.states.items() if number},
        "state_age_max_seconds": {str(state): round(age, 3) for state, age in summary.state_age_max.items()},
        "diagnosis": str(diagnosis.verdict) if diagnosis else None,
    }


def _finding(finding: Finding, result: CheckResult) -> dict[str, Any]:
    advice = advice_of(finding, result.sessions_of(finding.key.client))
    return {
        "message": finding_sentence(finding, at=result.polled_at),
        **finding_fields(finding),
        "since": text_of(finding.since),
        "age_seconds": round(result.polled_at - finding.since, 3),
        "cause": advice.cause,
        "steps": advice.steps,
        "terminate": advice.terminate,
        "runbook": published(advice.runbook),
        "stack": advice.stack._replace(runbook=published(advice.stack.runbook))._asdict() if advice.stack else None,
    }
