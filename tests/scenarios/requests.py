"""What a request does with its connection, and how some requests leak it."""

from dataclasses import dataclass, replace
from enum import Enum, auto

from pgwatch_sessions.core.statements import parse_statement
from tests.scenarios.chance import Duration, about, between


class Keeps(Enum):
    """What a leaking request leaves behind."""

    #: The transaction, after its statement.
    TRANSACTION = auto()
    #: A transaction whose statement failed, never rolled back.
    ABORTED = auto()
    #: A transaction without statements.
    BEGUN = auto()
    #: The connection, after a statement in autocommit.
    CONNECTION = auto()
    #: A new engine, whose pool keeps the connection.
    ENGINE = auto()
    #: The transaction, while the thread that keeps it goes on with its next requests in it.
    THREAD = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Which requests leak, and what happens to what they leak."""

    keeps: Keeps = Keeps.TRANSACTION
    #: Share of these requests that leak.
    chance: float = 1.0
    begin: float = 0.0
    end: float = float("inf")
    #: The share that the garbage collector returns, after `collected_after` and only under traffic.
    collected: float = 0.0
    collected_after: Duration = between(3, 11)
    #: A collected AsyncSession closes its connection instead of returning it.
    collected_ends: bool = False
    #: With Keeps.THREAD: seconds between two requests of that thread.
    goes_on_after: Duration = between(1, 12)
    #: The pool believes that the connection is closed (after a cancelled request), and opens others.
    pool_forgets: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One kind of request. Durations are of one statement, and of the client's work after it."""

    sql: str
    takes: Duration = about(0.01)
    #: Idle in transaction (idle, in autocommit) while the client works, waits for others, or streams.
    thinks: Duration | None = None
    #: Number of statements, each followed by `thinks`.
    repeats: int = 1
    #: `thinks` is so long that somebody wants to know: each one is recorded like a leaked session, with its end.
    too_long: bool = False
    writes: bool = False
    #: Runs in BEGIN and COMMIT even if the pool's connections are in autocommit.
    explicit: bool = False
    #: A row `table:key` or relation `table` that the statement locks until the end of its transaction.
    locks: str | None = None
    shared: bool = False
    #: lock_timeout, after which the request rolls back.
    gives_up: float | None = None
    #: Share of the service's traffic, relative to its other requests.
    share: float = 1.0
    #: Requests per minute from begin to end, instead of a share of the service's traffic.
    per_minute: float | None = None
    begin: float = 0.0
    end: float = float("inf")
    leak: Leak | None = None

    @property
    def site(self) -> str:
        """The expected site of a finding about this request."""
        return parse_statement(self.sql).site


def leaking(request: Request, *, per_minute: float | None = None, share: float = 1.0, **leak: object) -> Request:
    """Make a request leak, at its own rate or as part of the traffic."""
    window = {key: leak[key] for key in ("begin", "end") if key in leak and per_minute is not None}
    return replace(request, per_minute=per_minute, share=share, leak=Leak(**leak), **window)  # type: ignore[arg-type]  # fields of Leak and Request


def tagged(request: Request, route: str, *, prepended: bool = False) -> Request:
    """Add a comment with the route to the statement, as sqlcommenter does."""
    comment = f"/*route='{route.replace('/', '%2F')}',framework='fastapi'*/"
    sql = f"{comment} {request.sql}" if prepended else f"{request.sql} {comment}"
    return replace(request, sql=sql)


LIST_ORDERS = Request(sql="SELECT orders.id, orders.customer, orders.status FROM orders ORDER BY id LIMIT 20")
READ_ORDER = Request(sql="SELECT id, customer, status, total FROM orders WHERE id = $1", takes=about(0.004))
PAY_ORDER = Request(sql="UPDATE orders SET status = $1 WHERE id = $2", takes=about(0.006), writes=True)
READ_STOCK = Request(sql="SELECT sku, quantity FROM stock WHERE sku = $1", takes=about(0.005))
READ_METRICS = Request(sql="SELECT * FROM metrics WHERE date > $1 LIMIT 20", takes=about(0.01))
