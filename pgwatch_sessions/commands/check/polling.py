"""A few polls each server, by the daemon's own steps."""

import asyncio
import time
from collections.abc import Callable, Mapping

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, FailureReason
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.postgres.connection import HeldConnection

#: What a second try does not mend.
_HOPELESS = frozenset({FailureReason.AUTHENTICATION, FailureReason.PRIVILEGE})


async def poll_at_all(
    connections: Mapping[str, HeldConnection],
    *,
    polls: int,
    pause: float,
    policy: Policy,
    polled: Callable[[int], None],
) -> tuple[ServerState, ...]:
    """Return each server's state after so many polls, `pause` seconds apart; `polled` is told how many are done."""
    return tuple(
        await asyncio.gather(
            *(
                _poll_at(name, connection, polls=polls, pause=pause, policy=policy, polled=polled)
                for name, connection in connections.items()
            )
        )
    )


async def _poll_at(
    name: str,
    connection: HeldConnection,
    *,
    polls: int,
    pause: float,
    policy: Policy,
    polled: Callable[[int], None],
) -> ServerState:
    state = ServerState(server=name)
    begun = time.monotonic()
    try:
        for done in range(polls):
            await asyncio.sleep(begun + done * pause - time.monotonic())
            started = time.monotonic()
            outcome = await connection.poll()
            state, _ = advance(state, outcome, policy=policy, at=time.time(), duration=time.monotonic() - started)
            polled(done + 1)
            if isinstance(outcome, Failure) and outcome.reason in _HOPELESS:
                break
    finally:
        await connection.close()
    return state
