"""What most stories share: the shop's service of orders, and how the truth about its leaks is told."""

from pgwatch_sessions.core.findings import LeakKind
from pgwatch_sessions.core.model import Client
from tests.scenarios.pools import sqlalchemy
from tests.scenarios.requests import LIST_ORDERS, PAY_ORDER, READ_STOCK, Request
from tests.scenarios.server import Postgres
from tests.scenarios.services import Service
from tests.scenarios.story import Truth

ORDERS = Client("shop", "app", "orders")
CONNECTION = frozenset({LeakKind.CONNECTION_HELD})
#: Where the server does not show whether a session was handed back, its growth may be all there is to find.
GROWTH = frozenset({LeakKind.CONNECTION_HELD, LeakKind.ORIGIN_GROWTH})
#: So large that a leak does not end with the pool before it was judged.
ROOMY = sqlalchemy(20, 40)
BIG = Postgres(max_connections=500)
SHOP = (LIST_ORDERS, PAY_ORDER, READ_STOCK)


def orders(*requests: Request, **fields: object) -> Service:
    """Make the service most stories are about: healthy requests, and these."""
    return Service(**({"pool": ROOMY, "requests": (*SHOP, *requests)} | fields))  # type: ignore[arg-type]


def truth(request: Request | None, client: Client = ORDERS, *, fast: bool = False, **fields: object) -> Truth:
    """Say which request of which client leaks; without a request its site does not show."""
    in_time = {"found_within": 120.0, "warned_within": 120.0} if fast else {}
    site = request.site if request else None
    return Truth(client=client, site=site, **(in_time | fields))  # type: ignore[arg-type]
