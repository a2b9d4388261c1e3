"""Polling, from a test: a held connection, run for a moment in a loop of its own."""

import asyncio
from collections.abc import Awaitable, Callable

from pgwatch_sessions.core.model import Failure, Session, Snapshot
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.postgres.connection import HeldConnection, Target


def held(dsn: str, *, timeout: float = 5.0, password: Callable[[], str] | None = None) -> HeldConnection:
    """Return a connection to be polled through, not yet open."""
    target = Target(name="db", dsn=dsn, password=password)
    return HeldConnection(target, timeout=timeout, parse=parse_statement, jitter=lambda limit: limit / 2)


def polling(use: Callable[[HeldConnection], Awaitable[None]], connection: HeldConnection) -> None:
    """Run what a test does with the connection, and close it."""

    async def run() -> None:
        try:
            await use(connection)
        finally:
            await connection.close()

    asyncio.run(run())


def poll(dsn: str, *, timeout: float = 5.0, password: Callable[[], str] | None = None) -> Snapshot | Failure:
    """Connect, poll once, and leave."""
    outcomes: list[Snapshot | Failure] = []

    async def once(connection: HeldConnection) -> None:
        outcomes.append(await connection.poll())

    polling(once, held(dsn, timeout=timeout, password=password))
    return outcomes[0]


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
