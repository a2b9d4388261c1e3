"""What is kept of a server's state, when it is worth a write, and how it is written as bytes.

Kept is what the next poll needs, and the counters of leaks, which are written whenever they change. Histograms and
the counters of polls begin at zero, as those of every program do after a restart. They change with each poll, so those
in the file would often be older than the last scrape. Prometheus takes a counter that goes back for one that began at
zero, and would count all of it again.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pgwatch_sessions.core.judging.tracked_finding import TrackedFinding
from pgwatch_sessions.core.model import Client, Session, SessionId
from pgwatch_sessions.core.state import Memory, ServerState
from pgwatch_sessions.core.statements import Statement
from pgwatch_sessions.core.summaries.label_budget import LabelledClients
from pgwatch_sessions.core.summaries.leak_counters import LeakCounters
from pgwatch_sessions.memory.codec import Codec

#: Raise it when a kept value gets another meaning and keeps its type. A changed type is noticed by itself.
_MEANING = 1
#: What changes with nearly every poll, such as habits, is written when what was written is this old, in seconds.
_MAX_AGE = 60.0
#: More than any state is, uncompressed: that of 10,000 sessions takes 3 MB.
MAX_BYTES = 32 * 2**20
#: Level 1 of gzip: a quarter of the time of the default, and a tenth larger.
_COMPRESSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """The part of a ServerState that is kept."""

    last_success: float | None
    labelled: LabelledClients
    leak_counters: LeakCounters
    memory: Memory


# The types that occur often, and within others.
_CODEC = Codec(_Kept, shared=(Client, Statement, Session))
VERSION = f"{_MEANING}-{_CODEC.fingerprint}"


class UnusableStateError(ValueError):
    """Why a file cannot be used: the end of a sentence that begins with the file's name."""


class Written(NamedTuple):
    """What a file holds, as far as it decides when the file is written again."""

    #: The last poll, by the server's clock.
    at: float
    #: What was reported and counted.
    reported: tuple[object, ...]
    #: How often each session had moved.
    moves: Mapping[SessionId, object]


def written(state: ServerState) -> Written | None:
    """Return what a file holds in which this state was written; None if the state is not worth a file yet."""
    if state.last_poll_at is None:
        return None
    return Written(state.last_poll_at, tuple(_reported(state)), _moves(state))


def is_worth_a_write(former: Written | None, state: ServerState) -> bool:
    """Return whether a state differs from what was written in more than numbers that change all the time.

    What was reported and counted must be in the file, or a restart would report and count it again. All else may be
    lost if it is younger than a minute. A server at which nothing moves is not written again.
    """
    if state.last_poll_at is None:
        return False
    if former is None or former.reported != tuple(_reported(state)):
        return True
    return abs(state.last_poll_at - former.at) >= _MAX_AGE and former.moves != _moves(state)


def _reported(state: ServerState) -> Iterator[object]:
    yield state.leak_counters
    yield {who: diagnosis.verdict for who, diagnosis in state.diagnoses.items()}
    yield from map(_finding_marks, state.memory.tracked)


def _finding_marks(tracked: TrackedFinding) -> object:
    finding = tracked.finding
    return finding.id, finding.severity, finding.is_leak, tracked.members, tracked.empty_since, tracked.last_reported


def _moves(state: ServerState) -> Mapping[SessionId, object]:
    return {
        identity: (track.moves, track.shown.state, track.shown.state_change)
        for identity, track in state.memory.history.tracks.items()
    }


def encode_state(state: ServerState, *, statements: str) -> bytes:
    """Return a state as the content of a file. `statements` is the setting by which it was gathered."""
    kept = _Kept(
        last_success=state.last_success,
        labelled=state.labelled,
        leak_counters=state.leak_counters,
        # A new process reports once more that sessions are hidden or clients folded.
        memory=replace(state.memory, had_hidden=False, had_folded=False),
    )
    document = {
        "version": VERSION,
        "server": state.server,
        "statements": statements,
        "last_poll_at": _text(state.last_poll_at),
        "state": _CODEC.write(kept),
    }
    # Not ASCII, and with any text that PostgreSQL may send: it is read back as it was.
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), check_circular=False)
    return gzip.compress(text.encode("utf-8", "surrogatepass"), _COMPRESSION, mtime=0)


def decode_state(content: bytes, *, server: str, statements: str) -> ServerState:
    """Return the state of a server from the content of its file. UnusableStateError if it is of no use here."""
    document = _document(content)
    if document.get("version") != VERSION:
        raise UnusableStateError("was written by another version of pgwatch-sessions")
    if document.get("server") != server:
        raise UnusableStateError("is of another server")
    if document.get("statements") != statements:
        raise UnusableStateError("was written with another setting of `statements`")
    try:
        kept = _CODEC.read(document["state"])
    except (ValueError, TypeError, LookupError, AttributeError):
        raise UnusableStateError("is damaged") from None
    return ServerState(
        server=server,
        last_success=kept.last_success,
        labelled=kept.labelled,
        leak_counters=kept.leak_counters,
        memory=kept.memory,
    )


def _document(content: bytes) -> dict[str, Any]:
    try:
        # gzip has a checksum, so a file that was cut or changed is noticed here.
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            text = file.read(MAX_BYTES + 1)
        document = json.loads(text.decode("utf-8", "surrogatepass")) if len(text) <= MAX_BYTES else None
    except (OSError, EOFError, zlib.error, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UnusableStateError("is damaged")
    return document


def _text(seconds: float | None) -> str | None:
    """Return a time for a person who looks into the file."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
