"""A few looks at each server, by the daemon's own steps."""

import asyncio
import time
from collections.abc import Callable, Mapping

from pgwatch_sessions.core.model import Failure, Reason
from pgwatch_sessions.core.policy import Policy
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.postgres.connection import HeldConnection

#: What a second try does not mend.
_HOPELESS = frozenset({Reason.AUTHENTICATION, Reason.PRIVILEGE})


async def look_at_all(
    connections: Mapping[str, HeldConnection],
    *,
    looks: int,
    pause: float,
    policy: Policy,
    looked: Callable[[int], None],
) -> tuple[ServerState, ...]:
    """Return each server's state after so many looks, `pause` seconds apart; `looked` is told how many are done."""
    return tuple(
        await asyncio.gather(
            *(
                _look_at(name, connection, looks=looks, pause=pause, policy=policy, looked=looked)
                for name, connection in connections.items()
            )
        )
    )


async def _look_at(
    name: str,
    connection: HeldConnection,
    *,
    looks: int,
    pause: float,
    policy: Policy,
    looked: Callable[[int], None],
) -> ServerState:
    state = ServerState(server=name)
    begun = time.monotonic()
    try:
        for done in range(looks):
            await asyncio.sleep(begun + done * pause - time.monotonic())
            started = time.monotonic()
            outcome = await connection.look()
            state, _ = advance(state, outcome, policy=policy, at=time.time(), duration=time.monotonic() - started)
            looked(done + 1)
            if isinstance(outcome, Failure) and outcome.reason in _HOPELESS:
                break
    finally:
        await connection.close()
    return state
