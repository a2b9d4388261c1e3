"""What the live view shows, as values, and how they are read from the daemon's JSON documents.

A view is made from documents also if the servers are polled directly. So both sources show the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pgwatch_sessions.core.findings import Severity, Verdict
from pgwatch_sessions.core.limits import LimitId
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, LimitScope, SessionState
from pgwatch_sessions.recording.times import seconds_of
from pgwatch_sessions.wording.amounts import until_full
from pgwatch_sessions.wording.labels import limit_name, printable
from pgwatch_sessions.wording.lines import Tone

Document = Mapping[str, Any]


class ClientId(NamedTuple):
    """A client of one server."""

    server: str
    client: Client


class LimitView(NamedTuple):
    """A limit on connections. `reached` is when it will be reached, for example `in 3 min`; empty if not known."""

    name: str
    used: int
    capacity: int
    reached: str


class SessionView(NamedTuple):
    """One session. Its time in the state is in seconds; None if the state is hidden."""

    pid: int
    state: str
    seconds: float | None
    address: str
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingView:
    """An open finding with its advice."""

    #: The finding's anchor on the page.
    id: str
    server: str
    severity: Severity
    client: Client
    #: The client and the finding in one sentence, as `check` says it.
    sentence: str
    #: All held sessions, of which `sessions` lists those held longest.
    session_count: int
    sessions: tuple[SessionView, ...]
    cause: str
    steps: tuple[str, ...]
    #: The lines of one SQL statement that ends the sessions; empty if there are none.
    terminate: tuple[str, ...]
    runbook: str

    @property
    def label(self) -> str:
        """The severity; `recovering` if it has no session any more."""
        return str(self.severity).upper() if self.session_count else "recovering"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientView:
    """A client's sessions, counted by state. The counts are None while some of its sessions are hidden."""

    id: ClientId
    #: The verdict on the client; empty if there is none yet.
    verdict: str
    sessions: int
    hidden: int
    active: int | None
    idle: int | None
    in_transaction: int | None
    #: The longest time a session has been idle in transaction, in seconds.
    in_transaction_seconds: float | None

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is known to be wrong with it."""
        return self.verdict in {"", Verdict.OK}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """One server at its last poll."""

    name: str
    #: False if the last poll failed; None before the first one.
    up: bool | None
    #: Why the last poll failed; empty if it did not.
    failure: str
    verdict: str
    reason: str
    #: The server's time of the last successful poll, in seconds; None if there was none.
    polled_at: float | None
    hidden: int
    #: Clients that are counted together as `other`.
    folded: int
    #: The server's own limit first, then the fullest.
    limits: tuple[LimitView, ...]
    clients: tuple[ClientView, ...]
    #: One sentence for each client with sessions that are not judged, and why.
    not_judged: tuple[str, ...]

    @property
    def sessions(self) -> int:
        """All sessions of all clients."""
        return sum(client.sessions for client in self.clients)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that is shown, at one moment."""

    #: What is wrong now, in the words of the page.
    headline: str
    tone: Tone
    servers: tuple[ServerView, ...]
    #: Of all servers, the worst first.
    findings: tuple[FindingView, ...]
    #: The client whose sessions were asked for, and these sessions, longest in their state first.
    opened: ClientId | None = None
    opened_sessions: tuple[SessionView, ...] = ()

    def findings_of(self, server: str) -> tuple[FindingView, ...]:
        """Return the open findings of one server, the worst first."""
        return tuple(finding for finding in self.findings if finding.server == server)


def view_of(
    diagnosis: Document, leaks: Document, *, opened: ClientId | None = None, sessions: Document | None = None
) -> View:
    """Return the view that these documents describe. KeyError, TypeError or ValueError if one has another form."""
    return View(
        headline=_text(diagnosis["headline"]["text"]),
        tone=Tone(diagnosis["headline"]["tone"]),
        servers=tuple(map(_server, diagnosis["servers"])),
        findings=tuple(map(_finding, leaks["leaks"])),
        opened=opened,
        opened_sessions=_sessions_of(opened, sessions) if opened and sessions else (),
    )


def _server(fields: Document) -> ServerView:
    failure = fields["failure"]
    return ServerView(
        name=fields["server"],
        up=fields["up"],
        failure=_text(failure["message"]) if failure else "",
        verdict=_text(fields["diagnosis"] or ""),
        reason=_text(fields["reason"]),
        polled_at=seconds_of(fields["taken_at"]) if fields["taken_at"] else None,
        hidden=fields["hidden_sessions"] or 0,
        folded=fields["folded_clients"] or 0,
        limits=tuple(map(_limit, sorted(fields["limits"], key=_limit_order))),
        clients=tuple(_client(fields["server"], each) for each in fields["clients"]),
        not_judged=tuple(_text(each["text"]) for each in fields["not_judged"]),
    )


def _limit_order(limit: Document) -> tuple[bool, float]:
    return limit["scope"] != LimitScope.SERVER, -limit["used"] / max(1, limit["capacity"])


def _limit(fields: Document) -> LimitView:
    seconds = fields["exhaustion_seconds"]
    name = limit_name(LimitId(LimitScope(fields["scope"]), fields["name"]))
    return LimitView(_text(name), fields["used"], fields["capacity"], "" if seconds is None else until_full(seconds))


def _client(server: str, fields: Document) -> ClientView:
    states = fields["states"]
    held = None if states is None else sum(states[state] for state in IDLE_IN_TRANSACTION_STATES)
    return ClientView(
        id=ClientId(server, _client_of(fields)),
        verdict=_text(fields["diagnosis"] or ""),
        sessions=fields["session_count"],
        hidden=fields["hidden_sessions"],
        active=None if states is None else states[SessionState.ACTIVE],
        idle=None if states is None else states[SessionState.IDLE],
        in_transaction=held,
        in_transaction_seconds=fields["idle_in_transaction_age_max_seconds"],
    )


def _finding(fields: Document) -> FindingView:
    advice = fields["advice"]
    return FindingView(
        id=fields["anchor"],
        server=fields["server"],
        severity=Severity(fields["severity"]),
        client=_client_of(fields),
        sentence=_text(fields["message"]),
        session_count=fields["session_count"],
        sessions=tuple(_session(each, each["held_seconds"]) for each in fields["sessions"]),
        cause=_text(advice["cause"]),
        steps=tuple(map(_text, advice["steps"])),
        terminate=tuple(map(_text, (advice["terminate"] or "").splitlines())),
        runbook=_text(advice["runbook"]),
    )


def _sessions_of(opened: ClientId, sessions: Document) -> tuple[SessionView, ...]:
    return tuple(
        _session(each, each["state_seconds"])
        for server in sessions["servers"]
        if server["server"] == opened.server
        for each in server["sessions"]
        if _client_of(each) == opened.client
    )


def _session(fields: Document, seconds: float | None) -> SessionView:
    return SessionView(
        pid=fields["pid"],
        state=_text(fields["state"] or "hidden"),
        seconds=seconds,
        address=_text(fields["client_addr"] or "Unix socket"),
        statement=_text(fields["statement"]),
    )


def _client_of(fields: Document) -> Client:
    return Client(fields["database"], fields["user"], fields["application"])


def _text(value: str) -> str:
    return printable(value)
