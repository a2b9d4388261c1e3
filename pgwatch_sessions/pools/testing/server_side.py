"""Asks the server which sessions of this process were left in a transaction, and judges them as the daemon does.

A pool can say that every connection is back while the server still waits for one of them, as after a cancelled request,
or if a pool does not reset what comes back. Then only the server shows it.
"""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from pgwatch_sessions.core.findings import LeakKind
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Failure, Session, SessionId, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.pools.testing.held_transactions import HeldTransaction, ServerUnseenError
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.target import Target

#: The deadline of a poll, in seconds.
_TIMEOUT = 5.0
_PAUSE = 0.01
_NAME = "tests"
_OPTION = "--connection-leaks-dsn"
_HIDDEN = f"{_OPTION}: the role may not see the state of the tests' sessions: GRANT pg_monitor to it"


class ServerSide:
    """One connection to the server for the whole run, in an event loop of its own."""

    def __init__(self, dsn: str, *, grace: float) -> None:
        """`grace` is for how many seconds a transaction may stay open before it is reported."""
        self._policy = Policy(hold_limit=grace, tools=())
        self._grace = grace
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)  # it leaves the loop of the tests alone
        self._connection = HeldConnection(
            Target(name=_NAME, dsn=dsn), timeout=_TIMEOUT, parse=parse_statement, jitter=lambda _: 0.0
        )

    def close(self) -> None:
        """End the connection and the event loop."""
        self._runner.run(self._connection.close())
        self._runner.close()

    def left_in_transaction(self, pids: Collection[int]) -> tuple[HeldTransaction, ...]:
        """Return which of these sessions, given by pid, have been idle in transaction for longer than the grace.

        The first poll pairs each pid with its backend_start. If one of them is in a transaction, polls go on until it
        has moved or the grace is over.
        """
        return self._runner.run(self._judge(frozenset(pids)))

    async def _judge(self, pids: Collection[int]) -> tuple[HeldTransaction, ...]:
        snapshot = await self._poll()
        ours = {session.id for session in snapshot.sessions if session.id.pid in pids}
        suspects = {_hold(session) for session in snapshot.sessions if session.id in ours and _is_held(session)}
        state = ServerState(server=_NAME)
        while True:
            mine = tuple(session for session in snapshot.sessions if session.id in ours)
            if any(session.is_hidden for session in mine):
                raise ServerUnseenError(_HIDDEN)
            state, _ = advance(state, replace(snapshot, sessions=mine), policy=self._policy, at=0.0, duration=0.0)
            held = {
                session.id: HeldTransaction(
                    pid=session.id.pid, backend_start=session.id.backend_start, site=finding.site
                )
                for finding in state.findings
                if finding.key.kind is LeakKind.TRANSACTION_HELD
                for session in finding.sessions
            }
            young = [session for session in mine if _hold(session) in suspects and session.id not in held]
            if not young:
                return tuple(sorted(held.values(), key=lambda each: each.pid))
            await asyncio.sleep(max(_PAUSE, self._grace - max(_age(session, snapshot) for session in young)))
            snapshot = await self._poll()

    async def _poll(self) -> Snapshot:
        outcome = await self._connection.poll()
        if isinstance(outcome, Failure):
            raise ServerUnseenError(f"{_OPTION}: {outcome.detail or outcome.reason}")
        return outcome


def _hold(session: Session) -> tuple[SessionId, float | None]:
    """Identify a hold: it ends when the session moves."""
    return session.id, session.state_change


def _is_held(session: Session) -> bool:
    return session.state in IDLE_IN_TRANSACTION_STATES


def _age(session: Session, snapshot: Snapshot) -> float:
    return snapshot.taken_at - (session.state_change or snapshot.taken_at)
