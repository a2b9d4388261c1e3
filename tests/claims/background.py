"""The claim on sessions of a request that are handed to background work."""

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial

import fastapi

from tests.claims.claim import Claim, Outcome, verdict_of
from tests.claims.get_db import older_python, unreachable
from tests.claims.laboratory import Laboratory, Watched, at_the_same_time, watched_database
from tests.claims.running import service
from tests.claims.services.background import WORK_SECONDS

_REQUESTS = 5
#: Dependencies end before the response is sent, so before background work.
_BETWEEN = "0.117.1"
_RUNS: Mapping[str, str] = {
    "the request's session in the task": "shared",
    "an own session in the task": "own",
    'an own session, Depends(…, scope="function")': "function",
}


def _background(laboratory: Laboratory) -> Outcome:
    why = unreachable(_BETWEEN)
    with watched_database(laboratory, "background") as watched:
        runs = {name: partial(_held, watched, form, form, (sys.executable,)) for name, form in _RUNS.items()}
        if why is None:
            runs["an own session in the task, FastAPI 0.117.1"] = partial(
                _held, watched, "own-0.117.1", "own", older_python(_BETWEEN)
            )
        held = at_the_same_time(runs)
    shared, own, function, *between = held.values()
    rows: list[Sequence[object]] = [
        (name, fastapi.__version__ if name in _RUNS else _BETWEEN, _REQUESTS, *counts) for name, counts in held.items()
    ]
    if why is not None:
        rows.append(("an own session in the task", _BETWEEN, f"not tried: {why}", "-", "-"))
    earlier = f" On FastAPI {_BETWEEN} the same code held {between[0][0]}." if between else ""
    return Outcome(
        header=("run", "FastAPI", "requests", "idle in transaction during the work", "after it"),
        rows=rows,
        said={form: watched.replayed.said(form) for form in ("shared", "own", "function")},
        verdict=verdict_of(shared[0] == _REQUESTS, own[0] == 0),
        reason=(
            f"A request's session in the task is held for the whole work: {shared[0]} of {_REQUESTS}. But a fresh "
            f"session inside the task is not enough: {own[0]} were held, because FastAPI ends the dependencies of the "
            f'request after its background work.{earlier} `Depends(get_db, scope="function")` ends them before the '
            f"response: {function[0]} held."
        ),
    )


def _held(watched: Watched, name: str, form: str, python: Sequence[str]) -> tuple[int, int]:
    """Return how many sessions are idle in transaction one second before the work ends, and one second after."""
    with service("background", watched.dsn(name), python=python, form=form) as running:
        begun = time.monotonic()
        answers = running.visit_at_once("/order", _REQUESTS)
        assert answers["200"] == _REQUESTS, dict(answers)
        time.sleep(max(0.0, begun + WORK_SECONDS - 1.0 - time.monotonic()))
        during = watched.idle_in_transaction(name)
        time.sleep(2.0)
        return during, watched.idle_in_transaction(name)


CLAIMS = (
    Claim(
        name="background",
        text=(
            "A write-up on exhausted pools claims that a request's session must not be handed to background work, and "
            "that a fresh session inside the task is the right pattern."
        ),
        experiment=(
            f"{_REQUESTS} requests at once start a background task each. It makes a query and then works for "
            f"{WORK_SECONDS:g} s without the database. The route also uses a session from `Depends(get_db)`."
        ),
        attempt=_background,
    ),
)
