"""Polling from a test: through a held connection, or once from a test that is not async."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from pgwatch_sessions.commands.wiring import targets_of
from pgwatch_sessions.core.model import Failure, Session, Snapshot
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.settings.errors import SettingsError
from tests.support.given_settings import loaded


@asynccontextmanager
async def held(
    dsn: str,
    *,
    deadline: float = 5.0,
    password: Callable[[], str] | None = None,
    jitter: Callable[[float], float] = lambda limit: limit / 2,
) -> AsyncIterator[HeldConnection]:
    """Give a connection to poll through, which is not open yet, and close it at the end."""
    target = replace(target_of(dsn), password=password)
    connection = HeldConnection(target, timeout=deadline, parse=parse_statement, jitter=jitter)
    try:
        yield connection
    finally:
        await connection.close()


def target_of(dsn: str) -> Target:
    """Return the target of a DSN, as the settings give it; as it is if they would not accept it."""
    try:
        (target,) = targets_of(loaded({"name": "db", "dsn": dsn}))
    except SettingsError:
        return Target(name="db", dsn=dsn)
    return target


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
