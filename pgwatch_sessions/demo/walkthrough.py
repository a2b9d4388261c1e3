"""The demo in three acts: a service is healthy, then it leaks and the daemon detects it, then a fix is deployed.

Every number comes from the daemon, from the service's connection pool, or from the client that sends the requests.
"""

import asyncio
import json
import math
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from pgwatch_sessions.core.findings import Finding, Verdict
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.daemon import Running, running
from pgwatch_sessions.demo.comparison import comparison, measure
from pgwatch_sessions.demo.narrator import explain, report, report_event, say
from pgwatch_sessions.demo.postgres import Postgres, PostgresUnavailableError, running_postgres
from pgwatch_sessions.demo.service_process import (
    CONNECTIONS,
    DATABASE,
    POOL_TIMEOUT_SECONDS,
    ROLE,
    ServiceUnavailableError,
    create_database,
    running_service,
)
from pgwatch_sessions.demo.traffic import Outcome, Traffic, get
from pgwatch_sessions.logs import configure_logs
from pgwatch_sessions.pollers import Watch
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.terminal import Colour
from pgwatch_sessions.web.http_server import CannotListenError, bind, url
from pgwatch_sessions.wording.advice import advice_of
from pgwatch_sessions.wording.labels import limit_name

_SERVER = "demo"
_CLIENT = Client(DATABASE, ROLE, "orders-api")
_SITE = "/orders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the demo goes. All in seconds."""

    interval: float
    hold_limit: float
    growth_window: float
    #: Between two leaks.
    leak_every: float
    #: How long each act lasts at least; the second one from the first refused request on.
    healthy: float
    refusing: float
    fixed: float
    #: Between two lines on the service's sessions.
    status_every: float


#: Slow enough to read along; the hold limit is shorter than in production.
_READABLE = Pace(
    interval=1.0,
    hold_limit=5.0,
    growth_window=60.0,
    leak_every=5.0,
    healthy=15.0,
    refusing=12.0,
    fixed=20.0,
    status_every=5.0,
)
#: Half a minute in all.
_SHORT = Pace(
    interval=0.5,
    hold_limit=2.0,
    growth_window=30.0,
    leak_every=0.8,
    healthy=4.0,
    refusing=2.5,
    fixed=4.5,
    status_every=2.0,
)
_STATUS_EVERY_AFTERWARDS = 60.0
#: What should happen may take this many times its usual time: some machines are slow.
_PATIENCE = 3.0
_TICK_SECONDS = 0.05
_POLL_SECONDS = 20.0


class DemoFailedError(Exception):
    """Something that the demo was to show did not happen."""


def run_demo(*, once: bool) -> int:
    """Run the demo, until Ctrl-C or only once; return the exit code."""
    configure_logs("auto", "error", events=False)
    say("Starting PostgreSQL and the service ...")
    try:
        with running_postgres(settings={"max_connections": "30"}) as server:
            asyncio.run(_watch(server, _SHORT if once else _READABLE, stay=not once))
    except (PostgresUnavailableError, ServiceUnavailableError, DemoFailedError) as error:
        sys.stderr.write(f"pgwatch-sessions: error: {error}\n")
        return 1 if isinstance(error, DemoFailedError) else 2
    say("Stopped. PostgreSQL, the service and their files are removed.")
    return 0


async def _watch(server: Postgres, pace: Pace, *, stay: bool) -> None:
    await create_database(server)
    listener = _listener()
    watch = Watch(
        targets=(Target(name=_SERVER, dsn=server.dsn()),),
        interval=pace.interval,
        timeout=2.0,
        policy=Policy(hold_limit=pace.hold_limit, growth_window=pace.growth_window),
        parse=parse_statement,
        on_event=report_event,
    )
    say("")
    explain(
        f"An orders service (FastAPI, SQLAlchemy, asyncpg) uses a PostgreSQL server of its own. Its pool opens at most "
        f"{CONNECTIONS} connections, and its role may have no more. pgwatch-sessions watches the server."
    )
    say(
        f"\n  the page     {url(listener)}/\n  the metrics  {url(listener)}/metrics\n"
        f"  PostgreSQL   {server.dsn(database=DATABASE)}\n"
    )
    async with running(watch, listener) as daemon:
        walkthrough = _Walkthrough(daemon, pace)
        await _first_of(
            daemon.end,
            walkthrough.play(server, stay=stay),
            walkthrough.report_status(),
            walkthrough.traffic.flow(),
        )


def _listener() -> socket.socket:
    try:
        return bind("127.0.0.1", 9488)
    except CannotListenError:
        return bind("127.0.0.1", 0)


async def _first_of(end: "asyncio.Future[None]", *others: Coroutine[Any, Any, None]) -> None:
    """Run all until the first one is done, cancel the others, and raise their errors."""
    tasks = [asyncio.create_task(other) for other in others]
    try:
        await asyncio.wait((end, *tasks), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if end.done():
        end.result()
    for result in results:
        if isinstance(result, Exception):
            raise result


class _Walkthrough:
    """The acts, the traffic to the service, and what the daemon publishes meanwhile."""

    def __init__(self, daemon: Running, pace: Pace) -> None:
        self.traffic = Traffic()
        self._daemon = daemon
        self._pace = pace
        self._status_every = pace.status_every
        self._status_at = time.monotonic()
        #: Outcomes of requests before the present act.
        self._earlier = Counter[Outcome]()

    @property
    def _state(self) -> ServerState:
        """What the daemon published last."""
        return self._daemon.published.states()[_SERVER]

    async def play(self, server: Postgres, *, stay: bool) -> None:
        """Run the three acts and compare them. Without --once, keep running until Ctrl-C."""
        async with running_service(server, is_fixed=False) as self.traffic.address:
            healthy = await self._be_healthy()
            leaking = await self._leak()
            self._begin_act(
                "3. Fixed",
                "With `async with new_session() as session`, the session is closed even if the handler raises. The "
                "fixed service is deployed while requests keep coming: the old process stops, a new one starts.",
            )
            stopped_at = time.monotonic()
        async with running_service(server, is_fixed=True) as self.traffic.address:
            unanswered = self._outcomes()[Outcome.UNREACHED]
            report(f"deployed in {time.monotonic() - stopped_at:.1f} s; {unanswered} requests got no answer meanwhile")
            fixed = await self._be_fixed()
            self._status_every = _STATUS_EVERY_AFTERWARDS
            say("\n" + comparison({"healthy": healthy, "leaking": leaking, "fixed": fixed}))
            if stay:
                say(
                    "\nThe fixed service keeps running: look at the page and the metrics, and at those of its pool at "
                    f"{self.traffic.address}/metrics. Press Ctrl-C to stop."
                )
                await asyncio.Event().wait()

    async def report_status(self) -> None:
        """Report every few seconds how the service's sessions are, until cancelled."""
        while True:
            if self.traffic.address and time.monotonic() - self._status_at >= self._status_every:
                self._status_at = time.monotonic()
                report(_status(self._state), Colour.FAINT)
            await asyncio.sleep(_TICK_SECONDS)

    async def _be_healthy(self) -> Mapping[str, str]:
        self._begin_act(
            "1. Healthy",
            "Ten requests per second use all routes. Each takes a connection from the pool and returns it.",
        )
        await asyncio.sleep(self._pace.healthy)
        return await self._measure()

    async def _leak(self) -> Mapping[str, str]:
        pace = self._pace
        self._begin_act(
            "2. Leaking",
            f"Every {pace.leak_every:g} s, a request to GET /orders now asks for a customer who has an invalid order. "
            "The handler raises before its last line, which would close the session: each time, one connection leaks.",
        )
        self.traffic.bad_every = pace.leak_every
        at_most = _PATIENCE * (pace.hold_limit + 4 * pace.leak_every)
        await self._until(lambda: self._found() is not None, "the daemon did not detect the leak", at_most=at_most)
        self._advise()
        at_most = _PATIENCE * (CONNECTIONS * pace.leak_every + POOL_TIMEOUT_SECONDS)
        refused = "the pool did not run out of connections"
        await self._until(lambda: self._outcomes()[Outcome.REFUSED] > 0, refused, at_most=at_most)
        report(f"the first request is refused (503): no free connection for {POOL_TIMEOUT_SECONDS:g} s", Colour.RED)
        await asyncio.sleep(pace.refusing)
        return await self._measure()

    async def _be_fixed(self) -> Mapping[str, str]:
        self._begin_counting()
        await asyncio.sleep(self._pace.fixed)
        at_most = _PATIENCE * (self._pace.fixed + self._pace.hold_limit)
        await self._until(lambda: not self._state.findings, "the finding did not close", at_most=at_most)
        return await self._measure()

    def _found(self) -> Finding | None:
        """Return the finding once the daemon knows client, route, line of code, rate and the time that is left."""
        diagnosis = self._state.diagnoses.get(_CLIENT)
        if diagnosis is None or diagnosis.verdict is not Verdict.LEAKING:
            return None
        for finding in self._state.findings:
            is_named = (finding.key.client, finding.key.site) == (_CLIENT, _SITE)
            if (
                is_named
                and finding.is_leak
                and finding.code_lines
                and finding.rate_per_minute > 0
                and math.isfinite(finding.exhaustion_seconds)
            ):
                return finding
        return None

    def _advise(self) -> None:
        """Print the daemon's advice on the leak."""
        finding, summary = self._found(), self._state.summary
        if finding is None:
            return
        sessions = summary.snapshot.sessions if summary else ()
        advice = advice_of(finding, [session for session in sessions if session.client == _CLIENT])
        say("")
        explain(f"The likely cause: {advice.cause}")
        say("\nThis statement terminates exactly these sessions, and never a later one with the same pid:\n")
        say(indent(advice.terminate or "", "  ") + "\n")

    def _begin_act(self, title: str, introduction: str) -> None:
        say(f"\n{title}", Colour.BOLD)
        explain(introduction)
        self._status_at = time.monotonic()
        self._begin_counting()

    def _begin_counting(self) -> None:
        self._earlier = self.traffic.outcomes.copy()

    def _outcomes(self) -> Counter[Outcome]:
        """Return the outcomes of this act's requests."""
        return self.traffic.outcomes - self._earlier

    async def _until(self, condition: Callable[[], bool], failure: str, *, at_most: float) -> None:
        """Wait for a condition; DemoFailedError if it is not true after so many seconds."""
        deadline = time.monotonic() + at_most
        while not condition():
            if time.monotonic() > deadline:
                raise DemoFailedError(f"{failure} within {at_most:.0f} s")
            await asyncio.sleep(_TICK_SECONDS)

    async def _measure(self) -> Mapping[str, str]:
        """Return the figures of this act, after one more poll."""
        last = self._state
        await self._until(
            lambda: self._state is not last and self._state.summary is not None,
            "the daemon could not poll the server",
            at_most=_POLL_SECONDS,
        )
        assert self.traffic.address  # noqa: S101 - every act has a service
        _, pool = await get(self.traffic.address, "/pool")
        return measure(_CLIENT, self._state, json.loads(pool), self._outcomes())


def _status(state: ServerState) -> str:
    """Return the service's sessions by state, the use of its limits, and its diagnosis."""
    if state.summary is None:
        return "the last poll failed"
    states = Counter(str(session.state) for session in state.summary.snapshot.sessions if session.client == _CLIENT)
    sessions = ", ".join(f"{count} {name}" for name, count in sorted(states.items())) or "no session"
    limits = ", ".join(
        f"{limit_name(slots.limit)} {slots.used}/{slots.capacity}"
        for slots in state.summary.slots
        if slots.limit.applies_to(_CLIENT)
    )
    diagnosis = state.diagnoses.get(_CLIENT)
    return f"{_CLIENT.application}: {sessions} | {limits} | {diagnosis.verdict if diagnosis else 'no diagnosis yet'}"
