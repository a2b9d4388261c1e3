"""Views for tests, made from published states as the daemon's documents describe them."""

import json
from typing import Any

from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.top.view import ClientId, View, view_of
from pgwatch_sessions.web.json_api import DOCUMENTS, Selection, to_json


def view(*states: ServerState, opened: ClientId | None = None) -> View:
    """Return the view that a daemon with these states gives."""
    return view_of(
        document("diagnosis", *states),
        document("leaks", *states),
        opened=opened,
        sessions=document("sessions", *states) if opened else None,
    )


def document(name: str, *states: ServerState) -> dict[str, Any]:
    """Return a document as it comes over HTTP."""
    fields = DOCUMENTS[name]({state.server: state for state in states}, Selection())
    read: dict[str, Any] = json.loads(to_json(fields))
    return read
