"""The claim on `with Session() … yield` against try/finally, on three releases of FastAPI."""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import fastapi

from tests.claims.claim import Claim, Outcome, Verdict
from tests.claims.laboratory import Laboratory, Watched, watched_database
from tests.claims.running import ROOT, Service, service, shown

_SIZE, _OVERFLOW = 2, 10
_CONNECTIONS, _LOAD_SECONDS = 300, 2.0
#: How long sessions may take to come back after the load.
_GRACE_SECONDS = 2.0
#: The last release whose dependencies ended after the response, and one whose dependencies end before it; from 0.118
#: on they end after it again.
OLD_RELEASES = ("0.105.0", "0.117.1")


class _Trial(NamedTuple):
    """A service, and the routes that are loaded one after the other."""

    release: str
    form: str
    routes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The application_name of the service."""
        return f"{self.release} {self.form} {', '.join(self.routes)}"


_FORMS = ("with", "finally")
_ROUTES = ("/ok", "/error")
#: On the current release only: the collector plays no part; a form that leaks; a route that locks the service up.
_COLLECTORLESS = _Trial(fastapi.__version__, "with-gc-off", ("/error",))
_BARE = _Trial(fastapi.__version__, "bare", ("/error",))
_LOCKED = tuple(_Trial(fastapi.__version__, form, ("/model",)) for form in _FORMS)
#: Answers that a route must have had, or nothing was tried; a service that leaks or locks up gives fewer.
_LEAST_ANSWERS = {"/ok": ("200", 50), "/error": ("500", _SIZE + _OVERFLOW), "/model": ("200", 0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The load of one route."""

    route: str
    statuses: Counter[str]
    #: Sessions idle in transaction when the load ends, and after two seconds.
    at_end: int
    left: int


def older_python(release: str) -> Sequence[str]:
    """Return the command of a Python with this release of FastAPI, in an environment that uv makes and keeps."""
    packages = (f"fastapi=={release}", "uvicorn", "sqlalchemy>=2", "psycopg[binary]>=3.2")
    chosen = [option for package in packages for option in ("--with", package)]
    return ("uv", "run", "--quiet", "--no-project", "--python", sys.executable, *chosen, "python")


def unreachable(release: str) -> str | None:
    """Return why there is no Python with this release; None if there is one."""
    if shutil.which("uv") is None:
        return "uv is not installed"
    ran = subprocess.run([*older_python(release), "-c", "import fastapi"], cwd=ROOT, capture_output=True, check=False)
    return None if ran.returncode == 0 else "uv could not install it"


def _get_db(laboratory: Laboratory) -> Outcome:
    with ThreadPoolExecutor() as threads:
        missing = dict(zip(OLD_RELEASES, threads.map(unreachable, OLD_RELEASES), strict=True))
    releases = [fastapi.__version__, *(release for release, why in missing.items() if why is None)]
    trials = [_Trial(release, form, _ROUTES) for release in releases for form in _FORMS]
    with watched_database(laboratory, "get-db") as watched:
        runs: dict[_Trial, list[_Run]] = {}
        for trial in (*trials, _COLLECTORLESS, _BARE, *_LOCKED):
            laboratory.report(f"  FastAPI {trial.name}")
            runs[trial] = _runs(watched, trial)
    rows: list[Sequence[object]] = [
        (trial.release, f"`{trial.form}`", f"`{run.route}`", shown(run.statuses), run.at_end, run.left)
        for trial, loads in runs.items()
        for run in loads
    ]
    rows += [(release, "-", "-", f"not tried: {why}", "-", "-") for release, why in missing.items() if why]
    left = {form: sum(run.left for trial in trials if trial.form == form for run in runs[trial]) for form in _FORMS}
    return Outcome(
        header=("FastAPI", "form", "route", "answers by status", "idle in transaction at the end", "2 s later"),
        rows=rows,
        said={trial.name: watched.replayed.said(trial.name) for trial in (*trials[:2], _BARE, *_LOCKED)},
        verdict=Verdict.HOLDS if left["with"] > 0 == left["finally"] else Verdict.FAILS,
        reason=_reason(left, [runs[trial][0].left for trial in (_COLLECTORLESS, _BARE, *_LOCKED)]),
    )


def _reason(left: Mapping[str, int], left_by_others: Sequence[int]) -> str:
    uncollected, bare, *locked = left_by_others
    return (
        f"After the load, {left['with']} sessions were left with the `with` block and {left['finally']} with "
        f"`try/finally`. Both close the session as soon as the generator ends, on the error too: with the garbage "
        f"collector switched off, {uncollected} were left. What is seen at the moment when the load ends are requests "
        f"in flight, in every form. A bare `yield` with neither does leak ({bare} of {_SIZE + _OVERFLOW}). What the "
        f"claim may have met is another mistake: a `response_model` on a sync route needs a second one of 40 threads "
        f"while it holds its connection, so the load locks the service up with {locked[0]} and {locked[1]} connections "
        f"out in the two forms, until requests give up waiting."
    )


def _runs(watched: Watched, trial: _Trial) -> list[_Run]:
    python: Sequence[str] = (sys.executable,) if trial.release == fastapi.__version__ else older_python(trial.release)
    dsn = watched.dsn(trial.name)
    with service("get_db", dsn, form=trial.form, size=_SIZE, overflow=_OVERFLOW, python=python) as running:
        return [_run(watched, trial, running, route) for route in trial.routes]


def _run(watched: Watched, trial: _Trial, running: Service, route: str) -> _Run:
    statuses = running.load(route, connections=_CONNECTIONS, seconds=_LOAD_SECONDS)
    at_end = watched.idle_in_transaction(trial.name)
    status, least = _LEAST_ANSWERS[route]
    assert statuses[status] >= least, f"{trial.name}: {dict(statuses)}"
    left = _left(lambda: watched.idle_in_transaction(trial.name))
    return _Run(route=route, statuses=statuses, at_end=at_end, left=left)


def _left(sessions: Callable[[], int]) -> int:
    """Return 0 as soon as no session is left, else how many are left after the grace."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (left := sessions()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


CLAIMS = (
    Claim(
        name="get-db",
        text=(
            "A change proposed to a FastAPI template claims that `with Session(engine) as session: yield session` in a "
            "dependency leaks connections, idle in transaction, when routes raise under load, because they are closed "
            "only by the garbage collector; and that `try/finally` with `close()` does not."
        ),
        experiment=(
            f"{_CONNECTIONS} connections request a route for {_LOAD_SECONDS:g} s from a service with a pool of "
            f"{_SIZE} + {_OVERFLOW}, on three releases of FastAPI. `/ok` answers, `/error` raises, and `/model` has a "
            "`response_model`. Sessions idle in transaction are counted when the load ends and up to 2 s later. "
            "`with-gc-off` is the `with` block without a garbage collector, `bare` a `yield` without any block."
        ),
        attempt=_get_db,
    ),
)
