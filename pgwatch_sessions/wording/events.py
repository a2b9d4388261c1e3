"""Events as a name and fields, for the log, the JSON documents and replay."""

import math
from collections.abc import Mapping
from typing import Any

from pgwatch_sessions.core.events import (
    ClientsFolded,
    DiagnosisChanged,
    Event,
    LeakChanged,
    LeakClosed,
    LeakOpened,
    PrivilegeMissing,
    ServerDown,
    ServerEvent,
    ServerUp,
)
from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.wording.code_lines import code_line_fields
from pgwatch_sessions.wording.labels import quoted_name

#: The names of events. Users' log queries depend on them.
EVENT_NAMES: Mapping[type[Any], str] = {
    LeakOpened: "leak_opened",
    LeakChanged: "leak_changed",
    LeakClosed: "leak_closed",
    DiagnosisChanged: "diagnosis_changed",
    ServerUp: "server_up",
    ServerDown: "server_down",
    PrivilegeMissing: "privilege_missing",
    ClientsFolded: "clients_folded",
}
#: Pids in an event: of the sessions held longest. `session_count` counts all.
MAX_PIDS = 10
#: What to do if clients are folded into `other`.
FOLDED_CLIENTS_REMEDY = "raise max_clients, or give each application one name that does not change"


def event_name(event: Event) -> str:
    """Return the event's name in snake_case."""
    return EVENT_NAMES[type(event)]


def event_fields(event: Event) -> dict[str, Any]:
    """Return the event's fields as JSON values. A field that does not apply is left out."""
    match event:
        case LeakOpened(finding) | LeakChanged(finding):
            return _bounded(finding_fields(finding))
        case LeakClosed(finding):
            return {**_bounded(finding_fields(finding)), "state": "closed"}
        case DiagnosisChanged(diagnosis, before):
            return {
                **(client_fields(diagnosis.client) if diagnosis.client else {}),
                "diagnosis": str(diagnosis.verdict),
                **({"before": str(before)} if before else {}),
                **({"reason": diagnosis.reason} if diagnosis.reason else {}),
            }
        case _:
            return _server_fields(event)


def _server_fields(event: ServerEvent) -> dict[str, Any]:
    match event:
        case ServerUp(slots):
            return {"used_slots": slots.used, "capacity_slots": slots.capacity} if slots else {}
        case ServerDown(failure):
            return {"reason": str(failure.reason), "detail": failure.detail}
        case PrivilegeMissing(role, hidden, sessions):
            return {"hidden_sessions": hidden, "session_count": sessions, "remedy": grant_statement(role)}
        case ClientsFolded(folded):
            return {"folded_clients": folded, "remedy": FOLDED_CLIENTS_REMEDY}


def _bounded(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "sessions": fields["sessions"][:MAX_PIDS]}


def finding_fields(finding: Finding) -> dict[str, Any]:
    """Return a finding's kind, client, site and numbers, as JSON values."""
    return {
        "kind": str(finding.key.kind),
        "severity": str(finding.severity),
        "state": str(finding.state),
        **client_fields(finding.key.client),
        **({"origin": ", ".join(finding.origins)} if finding.origins else {}),
        "site": finding.site,
        **({"code_lines": lines} if (lines := code_line_fields(finding)) else {}),
        **({"configured_limit_seconds": finding.configured_limit} if finding.configured_limit else {}),
        "sessions": [session.id.pid for session in finding.sessions],
        "session_count": len(finding.sessions),
        "rate_per_minute": round(finding.rate_per_minute, 3),
        "exhaustion_seconds": finite_or_none(finding.exhaustion_seconds),
        "blocked": finding.harm.blocked,
    }


def client_fields(client: Client) -> dict[str, str]:
    """Return the three names that identify a client."""
    return {"database": client.database, "user": client.user, "application": client.application}


def finite_or_none(seconds: float) -> float | None:
    """Return the number to a tenth of a second, or None for infinity, which JSON does not have."""
    return None if math.isinf(seconds) else round(seconds, 1)


def grant_statement(role: str | None) -> str:
    """Return the SQL that shows hidden sessions to the monitoring role. A recording may not name the role."""
    return f"GRANT pg_monitor TO {quoted_name(role) if role else '<monitoring role>'};"
