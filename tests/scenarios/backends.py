"""One session of the simulated server. What its client does changes what pg_stat_activity shows."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pgwatch_sessions.core.client_names import client_of, tagged_application
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Session, SessionId, SessionState
from pgwatch_sessions.core.statements import parse_statement

if TYPE_CHECKING:
    from tests.scenarios.locks import Lock


class ConnectionLost(Exception):  # noqa: N818  named as libraries do
    """The server ended the session without its client."""


class Origin(NamedTuple):
    """The client of a process, and the address from which it connects."""

    database: str
    user: str
    application_name: str
    #: None for a Unix socket.
    address: str | None


class Backend:
    """A client backend. Its methods are messages from the client. All times are of the server's clock."""

    def __init__(self, pid: int, origin: Origin, port: int, clock: Callable[[], float]) -> None:
        self.pid = pid
        self.origin = origin
        self.application_name = origin.application_name
        self.port = port
        self.clock = clock
        self.born = self.state_change = clock()
        self.state = SessionState.IDLE
        self.query = ""
        self.query_start: float | None = None
        self.xact_start: float | None = None
        self.in_transaction = False
        #: The server's count of transactions when the xid was assigned, and when the snapshot was taken.
        self.xid: int | None = None
        self.xmin: int | None = None
        #: With the extended protocol, the snapshot is kept while the transaction is idle.
        self.keeps_snapshot = True
        self.alive = True
        self.locks: list[Lock] = []
        self.waits_for: Lock | None = None
        #: Called whenever the session becomes idle in transaction.
        self.sits: Callable[[Backend], None] | None = None
        #: Called when its transaction ends.
        self.ends: Callable[[Backend], None] | None = None
        self._session: Session | None = None

    @property
    def id(self) -> SessionId:
        """The session's identity in the core."""
        return SessionId(self.pid, self.born)

    def rename(self, application_name: str) -> None:
        """Set application_name, as a pooler does for each of its clients."""
        self._moved()
        self.application_name = application_name

    def begin(self, text: str) -> None:
        """Open a transaction explicitly."""
        self._send(text)
        self.in_transaction = True
        self.xact_start = self.query_start
        self._rest()

    def start(self, sql: str, *, transactions: int, writes: bool = False) -> None:
        """Start a statement. `transactions` is the server's count of transactions."""
        self._send(sql)
        self.state = SessionState.ACTIVE
        if self.xact_start is None:
            self.xact_start = self.query_start
        if self.xmin is None:
            self.xmin = transactions
        if writes and self.xid is None:
            self.xid = transactions

    def finish(self) -> None:
        """End the statement successfully."""
        self._alive()
        self._moved()
        if not self.in_transaction:
            self._over()
        elif not self.keeps_snapshot:
            self.xmin = None
        self._rest()

    def fail(self) -> None:
        """End the statement with an error, which aborts an open transaction."""
        self._alive()
        self._moved()
        aborted = self.in_transaction
        self._over()
        if aborted:
            self.in_transaction = True
            self.state = SessionState.ABORTED
            self.state_change = self.clock()
            if self.sits:
                self.sits(self)
        else:
            self._rest()

    def end(self, text: str) -> None:
        """Run a statement that takes no time and ends the transaction: COMMIT, ROLLBACK, a pool's reset."""
        self._send(text)
        self._over()
        self._rest()

    def session(self, *, transactions: int, hidden: bool = False) -> Session:
        """Return what a poll reads of this session."""
        if self._session is None:
            self._session = self._build_session()
        session = self._session
        if hidden:
            return replace(
                session, client=client_of(*self.origin[:3], None), client_addr=None, client_port=None, state=None,
                state_change=None, xact_start=None, query_start=None, wait_event_type=None, wait_event=None,
                backend_xmin_age=None, blocked_by=(), statement=parse_statement(None),
            )  # fmt: skip
        if self.xid is not None or self.xmin is not None:
            return replace(
                session,
                backend_xid_age=None if self.xid is None else transactions - self.xid,
                backend_xmin_age=None if self.xmin is None else transactions - self.xmin,
            )
        return session

    def _build_session(self) -> Session:
        statement = parse_statement(self.query)
        database, user, _, address = self.origin
        at_work = self.state is SessionState.ACTIVE
        return Session(
            id=self.id,
            client=client_of(database, user, self.application_name, tagged_application(statement)),
            client_addr=address,
            client_port=self.port if address else -1,
            state=self.state,
            state_change=self.state_change,
            xact_start=self.xact_start,
            query_start=self.query_start,
            wait_event_type=None if at_work else "Client",
            wait_event=None if at_work else "ClientRead",
            backend_xid_age=None,
            backend_xmin_age=None,
            blocked_by=(),
            statement=statement,
        )

    def _alive(self) -> None:
        if not self.alive:
            raise ConnectionLost

    def _send(self, text: str) -> None:
        self._alive()
        self._moved()
        self.query = text
        self.query_start = self.state_change = self.clock()

    def _moved(self) -> None:
        self._session = None

    def _rest(self) -> None:
        self.state = SessionState.IDLE_IN_TRANSACTION if self.in_transaction else SessionState.IDLE
        self.state_change = self.clock()
        if self.in_transaction and self.sits:
            self.sits(self)

    def _over(self) -> None:
        self.in_transaction = False
        self.xact_start = self.xid = self.xmin = None
        if self.ends:
            self.ends(self)


def sits_idle(backend: Backend) -> bool:
    """Return whether the session is idle in transaction."""
    return backend.state in IDLE_IN_TRANSACTION_STATES
