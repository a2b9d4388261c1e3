"""Events as names and fields: the one home of what logs, replays and pages say of them."""

import math
from collections.abc import Mapping
from typing import Any

from pgwatch_sessions.core.events import ClientsFolded, Event, PrivilegeMissing, ServerDown, ServerUp
from pgwatch_sessions.core.findings import Changed, Closed, Diagnosed, Finding, Opened
from pgwatch_sessions.core.model import Client

#: Event names, which are an interface.
NAMES: Mapping[type[Any], str] = {
    Opened: "leak_opened",
    Changed: "leak_changed",
    Closed: "leak_closed",
    Diagnosed: "diagnosis_changed",
    ServerUp: "server_up",
    ServerDown: "server_down",
    PrivilegeMissing: "privilege_missing",
    ClientsFolded: "clients_folded",
}


def told(event: Event) -> tuple[str, dict[str, Any]]:
    """Return the event's name and its fields, fit for JSON; what does not apply is left out."""
    return NAMES[type(event)], _fields(event)


def finding_fields(finding: Finding) -> dict[str, Any]:
    """Return what identifies a finding and how it stands."""
    return {
        "kind": str(finding.key.kind),
        "severity": str(finding.severity),
        **client_fields(finding.key.client),
        **({"origin": ", ".join(finding.origins)} if finding.origins else {}),
        "site": finding.key.site,
        "sessions": [session.id.pid for session in finding.sessions],
        "rate_per_minute": round(finding.rate_per_minute, 3),
        "exhaustion_seconds": finite(finding.exhaustion_seconds),
        "blocked": finding.harm.blocked,
    }


def client_fields(client: Client) -> dict[str, str]:
    """Return a client's names."""
    return {"database": client.database, "user": client.user, "application": client.application}


def finite(seconds: float) -> float | None:
    """Return the number, None where it is infinite: JSON has no infinity."""
    return None if math.isinf(seconds) else round(seconds, 1)


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case Opened(finding) | Changed(finding) | Closed(finding):
            return finding_fields(finding)
        case Diagnosed(diagnosis, before):
            return {
                **(client_fields(diagnosis.client) if diagnosis.client else {}),
                "diagnosis": str(diagnosis.verdict),
                **({"before": str(before)} if before else {}),
                **({"reason": diagnosis.reason} if diagnosis.reason else {}),
            }
        case ServerUp():
            return {}
        case ServerDown(failure):
            return {"reason": str(failure.reason), "detail": failure.detail}
        case PrivilegeMissing(role, hidden):
            return {"hidden_sessions": hidden, "remedy": f"GRANT pg_monitor TO {_quoted(role)};"}
        case ClientsFolded(folded):
            return {"folded_clients": folded, "remedy": "raise max_clients, or set steady application names"}


def _quoted(role: str | None) -> str:
    name = (role or "").replace('"', '""')
    return f'"{name}"'
