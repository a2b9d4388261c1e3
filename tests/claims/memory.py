"""The claim on memory that leaked connections take."""

from pathlib import Path

import psycopg

from tests.claims.claim import Claim, Outcome, verdict_of
from tests.claims.laboratory import Laboratory, Watched, watched_database
from tests.claims.running import Service, service

_LEAKED = 60
_MIB = 1024
#: What the write-up gives each connection, in MiB, and how far from it a measured value may be.
_CLAIMED_MIB, _FACTOR = 2.0, 2.0
#: Below this, memory counts as not growing: about a tenth of what the leaked connections took.
_STABLE_MIB = 8.0


def _memory(laboratory: Laboratory) -> Outcome:
    with watched_database(laboratory, "memory") as watched:
        with service("handlers", watched.dsn("leaking"), size=_LEAKED, overflow=0, timeout=0.01) as leaking:
            start = _warm(leaking)
            leaking.visit("/kept", times=_LEAKED, pause=0.0)
            full, server = _resident(leaking), _server_mib(watched, "leaking")
            leaking.visit("/kept", times=200, pause=0.0)
            refusing, sessions = _resident(leaking), watched.sessions("leaking")
            server_later = _server_mib(watched, "leaking")
        with service("handlers", watched.dsn("fixed"), size=_LEAKED, overflow=0) as fixed:
            fixed_start = _warm(fixed)
            answered = fixed.load("/fixed-early-return", connections=10, seconds=4.0)["200"]
            growth = _resident(fixed) - fixed_start
    client, each = (full - start) / _LEAKED, server / _LEAKED
    later = refusing - full + server_later - server
    return Outcome(
        header=("", "measured"),
        rows=[
            ("server, own memory of each leaked session", f"{each:.1f} MiB"),
            ("service, for each leaked connection", f"{_MIB * client:.0f} KiB"),
            (f"both together for {_LEAKED} leaked connections", f"{server + full - start:.0f} MiB"),
            ("growth of both during 200 more requests, with the pool used up", f"{later:.1f} MiB"),
            ("sessions then", sessions),
            (f"growth of the service during {answered:,} requests, fixed", f"{growth:.1f} MiB"),
        ],
        said={run: watched.replayed.said(run) for run in ("leaking", "fixed")},
        verdict=verdict_of(
            _CLAIMED_MIB / _FACTOR <= each + client <= _CLAIMED_MIB * _FACTOR,
            later > _STABLE_MIB,
            growth < _STABLE_MIB,
        ),
        reason=(
            f"A leaked connection costs {each:.1f} MiB, nearly all of it on the server, and {_MIB * client:.0f} KiB in "
            f"the service. The pool bounds it: once all {_LEAKED} are out, requests fail instead, and 200 of these let "
            f"memory grow by {later:.1f} MiB. So leaked connections of a pool do not explain 100 MB in every hour. "
            f"After the fix it grew by {growth:.1f} MiB."
        ),
    )


def _warm(running: Service) -> float:
    """Return the memory in MiB after some requests; the first ones load code."""
    running.visit("/fixed-early-return", times=200, pause=0.0)
    return _resident(running)


def _resident(running: Service) -> float:
    return running.pool()["resident_kib"] / _MIB


def _server_mib(watched: Watched, application: str) -> float:
    """Return the memory in MiB that ends with the sessions: what their processes share with no other."""
    with psycopg.connect(watched.dsn("claims"), autocommit=True) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", [application])
        pids = [pid for (pid,) in rows]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / _MIB


CLAIMS = (
    Claim(
        name="memory",
        text=(
            "A write-up on FastAPI leaks claims that a connection takes 2 MB, that unclosed connections make memory "
            "grow by 100 MB in every hour, and that memory does not grow after the fix."
        ),
        experiment=(
            f"A service leaks all {_LEAKED} connections of its pool and then gets 200 requests more. Memory is what "
            "the server's processes share with no other process, and the resident memory of the service. The fixed "
            "service gets requests for 4 s. Growth below 8 MiB counts as none."
        ),
        attempt=_memory,
    ),
)
