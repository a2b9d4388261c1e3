"""Which clients are checked."""

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from pgwatch_sessions.commands.command import CommandError
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.wording.labels import printable

#: Names of clients that an error lists.
_MAX_NAMED = 10


class ClientFilter(NamedTuple):
    """Shell patterns of the clients to check; None matches every client."""

    application: str | None
    database: str | None

    def matches(self, client: Client) -> bool:
        """Return whether the client is checked."""
        return (self.application is None or fnmatchcase(client.application, self.application)) and (
            self.database is None or fnmatchcase(client.database, self.database)
        )

    def name_of(self, client: Client) -> str:
        """Return the client by the names that the patterns are about."""
        names = (self.application and client.application, self.database and client.database)
        return printable(" in ".join(filter(None, names)))

    def __str__(self) -> str:
        """Return the patterns as options."""
        options = (("--application", self.application), ("--database", self.database))
        return printable(" ".join(f"{option} '{pattern}'" for option, pattern in options if pattern is not None))


def refuse_missing(clients: ClientFilter, states: Sequence[ServerState], *, remedy: str) -> None:
    """Raise CommandError if no client matches on any server: a gate with a wrong name must fail.

    If a server cannot be polled, its clients are not known; the check says so in its own way.
    """
    if clients == ClientFilter(None, None) or any(state.failure for state in states):
        return
    there: Counter[Client] = Counter()
    for state in states:
        there.update(dict.fromkeys(state.labelled.seen_at, 0))
        if state.last_summary is not None:
            there.update(session.client for session in state.last_summary.snapshot.sessions)
    if any(map(clients.matches, there)):
        return
    in_database = clients._replace(application=None)
    near = [client for client, _ in there.most_common() if in_database.matches(client)] or list(there)
    names = list(dict.fromkeys(map(clients.name_of, near)))
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    listed = f"there are {', '.join(names[:_MAX_NAMED])}{more}" if names else "no client has a session"
    raise CommandError(f"{clients} matches no client; {listed}; {remedy}")
