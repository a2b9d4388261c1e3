"""Cost of the core: CPU per poll by number of sessions, polls replayed a second, and memory with many of all."""

import gc
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader, BytesIO
from multiprocessing.connection import Connection
from statistics import median
from typing import NamedTuple

from prometheus_client import generate_latest

import pgwatch_sessions.command_line
from pgwatch_sessions.commands.replay.polls import ReplayedPoll, replay
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client, Session, SessionState, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.metrics.collector import registry_of
from pgwatch_sessions.recording import encode_poll, read_polls
from tests.bench.processes import resident_kib, resident_peak_kib, result_of
from tests.bench.tables import Limit, limits, table
from tests.support.values import NOW, session, snapshot

_SIZES = (10, 100, 1_000, 10_000)
_MANY_SESSIONS, _MANY_CLIENTS, _MANY_POLLS = 10_000, 500, 40
_NAMES, _NAMES_PER_POLL = 1_000_000, 1_000
_REPLAYED_SESSIONS, _REPLAYED_POLLS = 50, 2_000
_INTERVAL = 10.0
#: Imported so that the measured memory includes the whole program, as the limit does.
_PROGRAM = pgwatch_sessions.command_line

_LEAKED = "SELECT * FROM orders WHERE customer_id = 17 FOR UPDATE /*route='/orders/{id}'*/"
_USED = "UPDATE stock SET left = left - 1 WHERE article = 4711 /*route='/cart'*/"


class Memory(NamedTuple):
    """Resident memory and Python's own blocks, after `done` names."""

    done: int
    kib: int
    blocks: int


def bench() -> Iterator[str]:
    """Measure CPU in this process, and memory in separate processes."""
    costs = {size: _microseconds_per_session(size) for size in _SIZES}
    rows = [
        ["us per session", *costs.values()],
        ["ms per poll", *(cost * size / 1000 for size, cost in costs.items())],
    ]
    yield table("core: CPU of advance, median", ["sessions", *(f"{size:,}" for size in costs)], rows)
    kib, peak = result_of(_many_sessions)
    title = f"core: the process after {_MANY_POLLS} polls of {_MANY_SESSIONS:,} sessions of {_MANY_CLIENTS} clients"
    yield table(title, ["", "MiB"], [["resident", kib / 1024], ["its peak", peak / 1024]])
    names: list[Memory] = result_of(_many_names)
    header = ["application names so far", *(f"{each.done:,}" for each in names)]
    rows = [["resident, MiB", *(each.kib / 1024 for each in names)], ["blocks", *(each.blocks for each in names)]]
    yield table("core: memory while every session has a new application name", header, rows)
    yield limits(*_limits(costs, names, peak), _replay_limit(_replayed_per_second()))


def _limits(costs: Mapping[int, float], names: Sequence[Memory], peak: int) -> Iterator[Limit]:
    few, *more = costs
    # The trend of each connection limit costs the same for 10 sessions as for 10,000.
    yield Limit(what=f"{few} sessions: a poll", measured=costs[few] * few / 1000, bound=1, unit=" ms")
    for size in more:
        yield Limit(what=f"{size:,} sessions: advance, a session", measured=costs[size], bound=30, unit=" us")
    yield Limit(what="linear: a session at 10,000 / at 1,000", measured=costs[10_000] / costs[1_000], bound=1.5)
    yield Limit(
        what=f"{_MANY_SESSIONS:,} sessions: memory in all, at its peak", measured=peak / 1024, bound=120, unit=" MiB"
    )
    yield Limit(
        what=f"growth from {names[1].done:,} to {names[-1].done:,} names",
        measured=(names[-1].kib - names[1].kib) / 1024,
        bound=2,
        unit=" MiB",
    )


def _microseconds_per_session(size: int) -> float:
    """Return the median CPU of `advance` per session. A tenth of the sessions moves between two polls."""
    state, costs = ServerState(server="bench"), []
    for turn, seen in enumerate(_polls(size, max(40, 2_000 // size))):
        begun = time.process_time_ns()
        state, _ = advance(state, seen, policy=Policy(), at=seen.taken_at, duration=0.003)
        if turn >= 10:
            costs.append((time.process_time_ns() - begun) / 1000 / size)
    return median(costs)


def _replay_limit(per_second: float) -> Limit:
    what = f"{_REPLAYED_SESSIONS} sessions: polls replayed a second"
    return Limit(what=what, measured=per_second, bound=1_000, least=True)


def _replayed_per_second() -> float:
    """Return how many polls of a recording are read and judged per second of CPU."""
    polls = _polls(_REPLAYED_SESSIONS, _REPLAYED_POLLS)
    recording = b"".join(encode_poll(each, server="bench", at=each.taken_at) for each in polls)
    begun = time.process_time()
    replayed = replay(read_polls(BufferedReader(BytesIO(recording))), Policy())
    judged = sum(isinstance(each, ReplayedPoll) for each in replayed)
    return judged / (time.process_time() - begun)


def _polls(size: int, turns: int, clients: int | None = None) -> Iterator[Snapshot]:
    """Yield snapshots: a tenth of the sessions has leaked and never moves, another tenth moves between two polls."""
    clients = clients or max(1, min(_MANY_CLIENTS, size // 20))
    sessions = [_session(pid, pid % clients, at=NOW, leaked=pid % 10 == 0) for pid in range(size)]
    for turn in range(turns):
        at = NOW + turn * _INTERVAL
        for pid in range(1 + turn % 9, size, 10):
            sessions[pid] = _session(pid, pid % clients, at=at, leaked=False)
        yield snapshot(*sessions, at=at)


def _session(pid: int, client: int, *, at: float, leaked: bool) -> Session:
    idle = not leaked and pid % 3 == 0
    return session(
        pid,
        SessionState.IDLE if idle else SessionState.IDLE_IN_TRANSACTION,
        client=Client(f"shop_{client % 5}", f"app_{client % 7}", f"orders-{client}"),
        since=at - 1,
        born=NOW - pid % 1_000,
        query="ROLLBACK" if idle else _LEAKED if leaked else _USED,
    )


def _many_sessions(parent: Connection) -> None:
    """Poll and render with labels for every client. Each poll has new objects, as if they came from rows."""
    policy = Policy(max_clients=_MANY_CLIENTS, growth_window=_MANY_POLLS * _INTERVAL / 2)
    state = ServerState(server="bench")
    registry = registry_of(lambda: [state])
    for seen in _polls(_MANY_SESSIONS, _MANY_POLLS, _MANY_CLIENTS):
        copied = snapshot(*(_with_new_objects(each) for each in seen.sessions), at=seen.taken_at)
        state, _ = advance(state, copied, policy=policy, at=copied.taken_at, duration=0.003)
        del copied
        generate_latest(registry)
    parent.send((resident_kib(), resident_peak_kib()))


def _with_new_objects(seen: Session) -> Session:
    """Return an equal session with new objects for everything that real rows do not share."""
    fields = {name: getattr(seen, name) for name in Session.__slots__}
    times = {name: fields[name] + 0.0 for name in ("state_change", "query_start") if fields[name] is not None}
    identity = type(seen.id)(seen.id.pid, (seen.id.backend_start or 0.0) + 0.0)
    return Session(**{**fields, **times, "id": identity, "client_addr": "".join([*(seen.client_addr or "")])})


def _many_names(parent: Connection) -> None:
    state, taken = ServerState(server="bench"), []
    for done in range(0, _NAMES, _NAMES_PER_POLL):
        at = NOW + done / _NAMES_PER_POLL * _INTERVAL
        seen = snapshot(
            *(
                session(pid, client=Client("shop", "app", f"orders-{pid}"), born=at, since=at)
                for pid in range(done, done + _NAMES_PER_POLL)
            ),
            at=at,
        )
        state, _ = advance(state, seen, policy=Policy(), at=at, duration=0.003)
        if (done + _NAMES_PER_POLL) % (_NAMES // 4) == 0 or done == 100 * _NAMES_PER_POLL:
            gc.collect()
            taken.append(Memory(done=done + _NAMES_PER_POLL, kib=resident_kib(), blocks=sys.getallocatedblocks()))
    parent.send(taken)
