"""Whether the held sessions of a client fill a limit on connections, or its own pool."""

from collections.abc import Collection, Iterable, Sequence

from pgwatch_sessions.core.findings import FilledLimit
from pgwatch_sessions.core.history import History, Track
from pgwatch_sessions.core.judging.detection import BUSY_RESTS, SEVERAL
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import Client, Session

#: A limit is nearly full from this part on. A client fills it if it holds a large part of what is used.
_NEARLY_FULL = 0.9
_LARGE_PART = 1 / 3
#: While a limit is nearly full, holds count from this part of the hold limit on: their slots are missing now.
_HELD_AFTER = 0.3


def filled_limit(
    client: Client, found: Collection[Session], slots: Iterable[SlotUsage], history: History, *, hold_limit: float
) -> FilledLimit | None:
    """Return the fullest of the limits that the client's held sessions fill; None if they fill none.

    `found` are the sessions of a finding. All that are held count, also those that are not over the hold limit yet.
    """
    nearly_full = [
        each for each in slots if each.limit.applies_to(client) and each.used >= _NEARLY_FULL * each.capacity
    ]
    if not nearly_full:
        return None
    counted = {session.id for session in found}
    held = len(counted) + sum(
        track.session.client == client and track.session.id not in counted and _is_held(track, history, hold_limit)
        for track in history.tracks.values()
    )
    filled = [each for each in nearly_full if held >= max(SEVERAL, _LARGE_PART * each.used)]
    return max(
        (FilledLimit(each, held) for each in filled),
        key=lambda each: each.slots.used / each.slots.capacity,
        default=None,
    )


def full_pool(own: Sequence[Track], history: History, *, hold_limit: float) -> int | None:
    """Return the size of a client's own pool if all of it is held; None if not. `own` are all its sessions.

    The server does not know the size of a pool. It is full if the client was busy before, every session is held, and
    none was opened lately.
    """
    now = history.last_poll_at or 0.0
    full = (
        len(own) >= SEVERAL
        and history.rest_count(own[0].session.client) >= BUSY_RESTS
        and all(
            _is_held(track, history, hold_limit) and now - (track.session.id.backend_start or now) > hold_limit
            for track in own
        )
    )
    return len(own) if full else None


def _is_held(track: Track, history: History, hold_limit: float) -> bool:
    since, now = track.session.state_change, history.last_poll_at or 0.0
    return since is not None and now - since >= _HELD_AFTER * hold_limit and history.is_held(track.session)
