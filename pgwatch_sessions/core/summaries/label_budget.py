"""Decides which clients get metric labels of their own, so that the number of series stays bounded."""

from collections.abc import Mapping
from dataclasses import dataclass

from pgwatch_sessions.core.model import OTHER_CLIENT, Client


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledClients:
    """The clients that have labels of their own; all others share the labels of `other`.

    These are the largest clients, but the choice is sticky, so that series do not come and go with the ranking. A
    client keeps its place while it has sessions and for `remember` seconds after. A new client takes a free place, or
    the place of a client with less than half of its sessions.
    """

    #: The server's time when each was last seen with a session.
    seen_at: Mapping[Client, float]

    def admit(self, counts: Mapping[Client, int], *, at: float, budget: int, remember: float) -> "LabelledClients":
        """Choose again from the number of sessions of each client in a new poll; at most `budget` clients."""
        kept = {client: seen for client, seen in self.seen_at.items() if client in counts or at - seen < remember}
        kept.update((client, at) for client in kept if client in counts)
        newcomers = sorted((client for client in counts if client not in kept), key=lambda c: (-counts[c], c))
        smallest = sorted(kept, key=lambda c: (counts.get(c, 0), kept[c], c))
        while len(kept) > budget:  # it has become smaller
            del kept[smallest.pop(0)]
        for newcomer in newcomers:
            if len(kept) >= budget:
                if not smallest or counts[newcomer] <= 2 * counts.get(smallest[0], 0):
                    break
                del kept[smallest.pop(0)]
            kept[newcomer] = at
        return LabelledClients(seen_at=kept)

    def label(self, client: Client) -> Client:
        """Return the client under whose labels this client's sessions are shown."""
        return client if client in self.seen_at else OTHER_CLIENT


NO_CLIENTS = LabelledClients(seen_at={})
