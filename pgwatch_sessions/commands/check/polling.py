"""Polls each server a few times and judges each poll as the daemon does."""

import asyncio
import time
from collections.abc import Callable, Mapping

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, FailureReason
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
        begun = time.monotonic()
        try:
            for number in range(polls):
                await asyncio.sleep(begun + number * interval - time.monotonic())
                started = time.monotonic()
                outcome = await connection.poll()
                state, _ = advance(state, outcome, policy=policy, at=time.time(), duration=time.monotonic() - started)
                on_poll(number + 1)
                if isinstance(outcome, Failure) and outcome.reason in _PERMANENT:
                    break
        finally:
            await connection.close()
        return state

    return tuple(await asyncio.gather(*(poll(name, connection) for name, connection in connections.items())))
