"""The claim on an order service before and after its sessions were put in order."""

import time

from tests.claims.claim import Claim, Outcome, verdict_of
from tests.claims.laboratory import Laboratory, Watched, watched_database
from tests.claims.running import service

_SIZE, _OVERFLOW = 5, 5
_REQUESTS, _PAUSE = 120, 0.05
_REST_SECONDS = 3.0
#: Of five orders one does not exist and one has no items.
_ORDERS = ("/process/1", "/process/2", "/process/1000", "/process/3", "/process/95")
_MIB = 1024


def _order_processor(laboratory: Laboratory) -> Outcome:
    with watched_database(laboratory, "order-processor") as watched:
        before, after = (_figures(watched, form) for form in ("before", "after"))
    most = [watched.replayed.most(form, "idle in transaction", "active", "idle") for form in ("before", "after")]
    leaked, timeouts, p95 = "leaked, 3 s after the last request", "pool time-outs", "wait for a connection, p95, ms"
    figures = {"connections, most": most} | {name: [before[name], after[name]] for name in before}
    return Outcome(
        header=("", "before", "after"),
        rows=[(name, *values) for name, values in figures.items()],
        said={form: watched.replayed.said(form) for form in ("before", "after")},
        verdict=verdict_of(
            before[leaked] > 0 and before[timeouts] > 0,
            after[leaked] == 0 and after[timeouts] == 0,
            before[p95] > 10 * after[p95],
        ),
        reason=(
            f"Before, {before[leaked]:.0f} of {_SIZE + _OVERFLOW} connections were still out 3 s after the last "
            f"request, and {before[timeouts]:.0f} requests got none in time; after, {after[leaked]:.0f} and "
            f"{after[timeouts]:.0f}. The garbage collector gives some back in between. The version with two sessions "
            f"is also wrong in another way: it reads the order after its session is closed, so "
            f"{before['answered 200']:.0f} orders were answered with their total, instead of "
            f"{after['answered 200']:.0f}. Within seconds, memory does not tell the two apart."
        ),
    )


def _figures(watched: Watched, form: str) -> dict[str, float]:
    dsn = watched.dsn(form)
    with service("order_processor", dsn, form=form, size=_SIZE, overflow=_OVERFLOW, timeout=0.2) as running:
        running.visit("/process/1", times=5, pause=0.0)
        memory = running.pool()["resident_kib"]
        statuses = running.visit(*_ORDERS, times=_REQUESTS, pause=_PAUSE)
        time.sleep(_REST_SECONDS)
        pool = running.pool()
        return {
            "leaked, 3 s after the last request": pool["checked_out"],
            "pool time-outs": pool["timeouts"],
            "wait for a connection, p95, ms": round(1000 * pool["wait_p95"], 1),
            "growth of memory, MiB": round((pool["resident_kib"] - memory) / _MIB, 1),
            "answered 200": statuses["200"],
            "answered 404": statuses["404"],
            "answered 500": statuses["500"],
        }


CLAIMS = (
    Claim(
        name="order-processor",
        text=(
            "A write-up on FastAPI leaks claims that an order processor with two sessions, of which one is closed only "
            "on the way that succeeds and the other never, uses up its pool, and that one session in a `with` block "
            "ends leaks and time-outs and shortens the wait for a connection (p95) from 5.2 s to 0.01 s."
        ),
        experiment=(
            f"Both versions get {_REQUESTS} requests, twenty in a second, with a pool of {_SIZE} + {_OVERFLOW} that "
            "gives up after 0.2 s. Of five orders one does not exist and one has no items, which is an error."
        ),
        attempt=_order_processor,
    ),
)
