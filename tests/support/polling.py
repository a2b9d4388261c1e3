"""Polling from a test: through a held connection, or once from a test that is not async."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pgwatch_sessions.core.model import Failure, Session, Snapshot
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.postgres.connection import HeldConnection, Target


@asynccontextmanager
async def held(
    dsn: str,
    *,
    deadline: float = 5.0,
    password: Callable[[], str] | None = None,
    jitter: Callable[[float], float] = lambda limit: limit / 2,
) -> AsyncIterator[HeldConnection]:
    """Give a connection to poll through, which is not open yet, and close it at the end."""
    target = Target(name="db", dsn=dsn, password=password)
    connection = HeldConnection(target, timeout=deadline, parse=parse_statement, jitter=jitter)
    try:
        yield connection
    finally:
        await connection.close()


def poll(dsn: str, *, deadline: float = 5.0) -> Snapshot | Failure:
    """Connect, poll once, and leave."""

    async def once() -> Snapshot | Failure:
        async with held(dsn, deadline=deadline) as connection:
            return await connection.poll()

    return asyncio.run(once())


def seen(outcome: Snapshot | Failure) -> Snapshot:
    """Return the snapshot of a poll that must have succeeded."""
    assert isinstance(outcome, Snapshot), outcome
    return outcome


def failed(outcome: Snapshot | Failure) -> Failure:
    """Return the failure of a poll that must have failed."""
    assert isinstance(outcome, Failure), outcome
    return outcome


def session_of(pid: int, snapshot: Snapshot) -> Session:
    """Return the session of this pid."""
    return next(session for session in snapshot.sessions if session.id.pid == pid)
