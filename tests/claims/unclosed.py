"""Claims on handlers that take a SQLAlchemy session and do not close it."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tests.claims.claim import Claim, Outcome, verdict_of
from tests.claims.laboratory import Laboratory, Watched, at_the_same_time, watched_database
from tests.claims.running import Service, service, shown

#: Longer than the daemon's hold limit during experiments.
_REST_SECONDS = 3.0
_REQUESTS = 40
_HEADER = (
    "run", "pool", "requests", "answers by status", "most connections out", "pool time-outs", "still out after 3 s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run does."""

    requests: Callable[[Service], Counter[str]]
    size: int = 5
    overflow: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The figures of one run."""

    plan: Plan
    statuses: Counter[str]
    #: Connections out of the pool at the end of the requests, and after a rest.
    at_end: int
    left: int
    timeouts: int

    @property
    def full(self) -> bool:
        """Whether the whole pool is still out after the rest."""
        return self.left == self.plan.size + self.plan.overflow


def steady(*paths: str, times: int = _REQUESTS) -> Callable[[Service], Counter[str]]:
    """Return requests one after the other, ten in a second."""
    return lambda handlers: handlers.visit(*paths, times=times, pause=0.1)


def under_load(path: str) -> Callable[[Service], Counter[str]]:
    """Return twenty connections that are kept busy for some seconds."""
    return lambda handlers: handlers.load(path, connections=20, seconds=5.0)


def run(watched: Watched, name: str, plan: Plan) -> Run:
    """Start a service, send the requests, let it rest, and look at its pool."""
    with service("handlers", watched.dsn(name), size=plan.size, overflow=plan.overflow, timeout=0.3) as handlers:
        statuses = plan.requests(handlers)
        at_end = handlers.pool()
        time.sleep(_REST_SECONDS)
        pool = handlers.pool()
    return Run(
        plan=plan,
        statuses=statuses,
        at_end=int(at_end["checked_out"]),
        left=int(pool["checked_out"]),
        timeouts=int(pool["timeouts"]),
    )


def try_all(
    laboratory: Laboratory, claim: str, plans: Mapping[str, Plan]
) -> tuple[dict[str, Run], Sequence[Sequence[object]], dict[str, Sequence[str]]]:
    """Run all plans at the same time; return their figures, the rows of the table, and what the daemon said."""
    with watched_database(laboratory, claim) as watched:
        runs = at_the_same_time({name: partial(run, watched, name, plan) for name, plan in plans.items()})
    rows = []
    for name, each in runs.items():
        most = max(watched.replayed.most(name, "idle in transaction", "active"), each.at_end)
        pool = f"{each.plan.size} + {each.plan.overflow}"
        rows.append((name, pool, each.statuses.total(), shown(each.statuses), most, each.timeouts, each.left))
    return runs, rows, {name: watched.replayed.said(name) for name in runs}


def _unclosed_session(laboratory: Laboratory) -> Outcome:
    plans = {
        "local variable": Plan(requests=steady("/unclosed")),
        "local variable, small pool": Plan(requests=steady("/unclosed"), size=2, overflow=3),
        "kept in a list": Plan(requests=steady("/kept")),
        "with block": Plan(requests=steady("/fixed-early-return")),
    }
    runs, rows, said = try_all(laboratory, "unclosed-session", plans)
    local, small, kept, fixed = (runs[name] for name in plans)
    return Outcome(
        header=_HEADER,
        rows=rows,
        said=said,
        verdict=verdict_of(local.timeouts > 0, small.timeouts > 0, kept.full and kept.timeouts > 0, _is_clean(fixed)),
        reason=(
            "The pool is lost for good where anything refers to the session: a list, a task, a stored exception. "
            f"A session in a local variable is garbage when the handler returns, and Python's cyclic collector returns "
            f"its connection some requests later: with a pool of 15, {local.statuses.total()} requests had "
            f"{local.timeouts} pool time-outs, with a pool of 5 {small.timeouts}. Without requests nothing is "
            f"collected: {local.left} were still out after a rest. So a leak can hide until the pool is small or busy."
        ),
    )


def _is_clean(fixed: Run) -> bool:
    """Return whether nothing was left, and the handler did run."""
    assert fixed.statuses.total() == max(fixed.statuses.values()) == _REQUESTS
    return fixed.left == 0


def _early_return(laboratory: Laboratory) -> Outcome:
    plans = {
        "early return": Plan(requests=steady("/early-return")),
        "exception": Plan(requests=steady("/exception")),
        "exception, traceback kept": Plan(requests=steady("/kept-exception")),
        "with block, early return": Plan(requests=steady("/fixed-early-return")),
        "with block, exception": Plan(requests=steady("/fixed-exception")),
    }
    runs, rows, said = try_all(laboratory, "early-return", plans)
    early, exception, kept, *fixed = (runs[name] for name in plans)
    return Outcome(
        header=_HEADER,
        rows=rows,
        said=said,
        verdict=verdict_of(early.left > 0, exception.left > 0, kept.full, all(map(_is_clean, fixed))),
        reason=(
            "Every way out of the handler that skips `close()` leaves a transaction open. How long depends on the "
            f"collector: {early.left} and {exception.left} of 15 were still out after the rest, and all "
            f"{kept.left} where the traceback was kept. A `with` block left {sum(each.left for each in fixed)}."
        ),
    )


def _stays_out(laboratory: Laboratory) -> Outcome:
    plans = {
        "leak": Plan(requests=steady("/kept", times=25), size=5, overflow=0),
        "pool too small": Plan(requests=under_load("/slow"), size=5, overflow=0),
    }
    runs, rows, said = try_all(laboratory, "stays-out", plans)
    leak, small = (runs[name] for name in plans)
    return Outcome(
        header=_HEADER,
        rows=rows,
        said=said,
        verdict=verdict_of(leak.full and leak.timeouts > 0, small.left == 0 and small.timeouts > 0),
        reason=(
            f"Both runs had pool time-outs ({leak.timeouts} and {small.timeouts}), so time-outs do not tell them "
            f"apart. After the requests, {leak.left} of 5 connections stayed out of the leaking pool and "
            f"{small.left} of the one that is too small."
        ),
    )


CLAIMS = (
    Claim(
        name="unclosed-session",
        text=(
            "A write-up on FastAPI leaks claims that a handler which makes a SQLAlchemy `Session` and does not close "
            "it keeps its connection for good, so that the pool is used up after as many requests as it has "
            "connections."
        ),
        experiment=(
            f"Four services with such a handler get {_REQUESTS} requests, ten in a second, and then 3 s without any. "
            "The session is a local variable, or also in a list, or in a `with` block."
        ),
        attempt=_unclosed_session,
    ),
    Claim(
        name="early-return",
        text=(
            "The same write-up claims that an early return or an exception before `session.close()` leaks the session, "
            "and that `with Session(engine)` closes it in both cases."
        ),
        experiment=(
            f"Five services get {_REQUESTS} requests each that take such a way out, and then 3 s without any. In one, "
            "the traceback of the exception is kept, as a page of recent errors keeps it."
        ),
        attempt=_early_return,
    ),
    Claim(
        name="stays-out",
        text=(
            "A write-up on exhausted pools claims that connections which stay checked out after the requests have "
            "ended tell a leak from a pool that is too small."
        ),
        experiment=(
            "A service that leaks gets 25 requests. Another returns each connection after a query of 0.2 s, and serves "
            "20 clients with 5 connections. Both pools give up after 0.3 s. Then both rest for 3 s."
        ),
        attempt=_stays_out,
    ),
)
