"""Polls each server a few times and judges each poll as the daemon does."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from itertools import count

from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import FailureReason
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.postgres.connection import HeldConnection

#: After these failures another poll would fail as well.
_PERMANENT = frozenset({FailureReason.AUTHENTICATION, FailureReason.PRIVILEGE})


async def poll_servers(
    connections: Mapping[str, HeldConnection],
    *,
    polls: int,
    interval: float,
    policy: Policy,
    on_poll: Callable[[int], None],
) -> tuple[ServerState, ...]:
    """Return the state of each server after this many polls, `interval` seconds apart.

    `on_poll` is called after each poll with its number, from 1.
    """

    async def poll(name: str, connection: HeldConnection) -> ServerState:
        state = ServerState(server=name)
        number = 0
        async with aclosing(states(name, connection, interval=interval, policy=policy)) as polled:
            async for state, _ in polled:
                number += 1
                on_poll(number)
                if number == polls or (state.failure and state.failure.reason in _PERMANENT):
                    break
        return state

    return tuple(await asyncio.gather(*(poll(name, connection) for name, connection in connections.items())))


async def states(
    name: str, connection: HeldConnection, *, interval: float, policy: Policy
) -> AsyncGenerator[tuple[ServerState, tuple[Event, ...]], None]:
    """Yield the state after each poll of one server, with the events of the poll. Closes the connection at the end."""
    state = ServerState(server=name)
    begun = time.monotonic()
    try:
        for number in count():
            await asyncio.sleep(begun + number * interval - time.monotonic())
            started = time.monotonic()
            outcome = await connection.poll()
            state, events = advance(state, outcome, policy=policy, at=time.time(), duration=time.monotonic() - started)
            yield state, events
    finally:
        await connection.close()
