"""What else goes on beside a service: other healthy services, jobs, consoles, dumps, deploys."""

from tests.scenarios.chance import about, steady
from tests.scenarios.draws import Draws, draw_traffic, pool_with_reset, pool_without_reset
from tests.scenarios.requests import READ_METRICS, Request
from tests.scenarios.scripts import console, cron, dump, leader, listener, report
from tests.scenarios.services import Service
from tests.scenarios.shop import SHOP
from tests.scenarios.story import Part

_NAMES = ("invoices", "search", "mail", "catalogue")


def company(draws: Draws, *, minutes: float, calm: bool = False) -> tuple[Part, ...]:
    """Draw the company that a service keeps. If `calm`, nothing of it grows."""
    services = [_service(draws, i, minutes=minutes, calm=calm) for i in range(draws.whole("other services", 0, 3))]
    others: dict[str, tuple[Part, ...]] = {
        "nobody": (),
        "listener and leader": (listener(), leader()),
        "cron job": (cron(every=60),),
        "console": (console(),),
        "dump": dump(minutes=5),
        "report": (report(starts=400, seconds=200),),
    }
    return (*services, *draws.one_of("beside", others))


def _service(draws: Draws, place: int, *, minutes: float, calm: bool) -> Service:
    most = draws.whole("its pool", 3, 10)
    pool = (pool_with_reset if draws.happens("resets", 0.5) else pool_without_reset)(draws, most)
    return Service(
        application=_NAMES[place],
        network=f"10.{place + 1}.0",
        pool=pool,
        instances=((0, draws.whole("instances", 1, 2)),),
        requests=(*SHOP, Request(sql=READ_METRICS.sql, takes=about(draws.magnitude("slowest s", 0.02, 2)), share=0.2)),
        traffic=steady(1.0) if calm else draw_traffic(draws, minutes=minutes, most=5.0),
        deploys=(draws.between("deploy min", 5, minutes) * 60,) if draws.happens("deploys", 0.3) and not calm else (),
    )
