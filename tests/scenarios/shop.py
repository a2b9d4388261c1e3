"""What most stories share: the shop's service for orders, and the truth about its leaks."""

from pgwatch_sessions.core.findings import LeakKind
from pgwatch_sessions.core.model import Client
from tests.scenarios.pools import sqlalchemy
from tests.scenarios.requests import LIST_ORDERS, PAY_ORDER, READ_STOCK, Request
from tests.scenarios.server import Postgres
from tests.scenarios.services import Service
from tests.scenarios.story import Truth

ORDERS = Client("shop", "app", "orders")
CONNECTION = frozenset({LeakKind.CONNECTION_HELD})
#: If the server does not show whether a session was returned to the pool, only growth may be found.
GROWTH = frozenset({LeakKind.CONNECTION_HELD, LeakKind.ORIGIN_GROWTH})
#: So large that the leak does not use up the pool before it is judged.
ROOMY = sqlalchemy(20, 40)
BIG = Postgres(max_connections=500)
SHOP = (LIST_ORDERS, PAY_ORDER, READ_STOCK)


def orders(*requests: Request, **fields: object) -> Service:
    """Return the service of most stories, with healthy requests and these."""
    return Service(**({"pool": ROOMY, "requests": (*SHOP, *requests)} | fields))  # type: ignore[arg-type]  # fields of Service


def truth(request: Request | None, client: Client = ORDERS, *, fast: bool = False, **fields: object) -> Truth:
    """Return the truth about a leak. Without a request, the server does not show its site."""
    in_time = {"found_within": 120.0, "warned_within": 120.0} if fast else {}
    site = request.site if request else None
    return Truth(client=client, site=site, **(in_time | fields))  # type: ignore[arg-type]  # fields of Truth
