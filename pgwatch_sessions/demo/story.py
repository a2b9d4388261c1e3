"""The demonstration: a service is healthy, leaks, is found out, and is mended, while the daemon watches.

Every number comes from what the daemon publishes, from the service's own pool, or from those who sent the requests.
"""

import asyncio
import math
import socket
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from pgwatch_sessions.core.findings import Finding, Verdict
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.daemon import Watch, running
from pgwatch_sessions.demo import speech, words
from pgwatch_sessions.demo.deployment import (
    CONNECTIONS,
    DATABASE,
    POOL_TIMEOUT_SECONDS,
    ROLE,
    ServiceUnavailableError,
    create_database,
    deployed,
)
from pgwatch_sessions.demo.postgres import Postgres, PostgresUnavailableError, running_postgres
from pgwatch_sessions.demo.scoreboard import Score, table
from pgwatch_sessions.demo.stage import NotAsToldError, Stage
from pgwatch_sessions.demo.traffic import Outcome, Traffic
from pgwatch_sessions.logs import configure_logs
from pgwatch_sessions.postgres.connection import Target
from pgwatch_sessions.web.http_server import CannotListenError, bind, url
from pgwatch_sessions.wording.advice import advice_of

_SERVER = "demo"
_CLIENT = Client(DATABASE, ROLE, "orders-api")
_SITE = "/orders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the story goes. All in seconds."""

    interval: float
    hold_limit: float
    growth_window: float
    #: Between two leaks.
    leak_every: float
    #: How long health, the outage, and health again are shown.
    healthy: float
    outage: float
    mended: float
    standing_every: float


#: As it happens in life, only that the daemon's patience is scaled down.
_READABLE = Pace(
    interval=1.0,
    hold_limit=5.0,
    growth_window=60.0,
    leak_every=5.0,
    healthy=15.0,
    outage=12.0,
    mended=20.0,
    standing_every=5.0,
)
#: All of it in half a minute.
_SHORT = Pace(
    interval=0.5,
    hold_limit=2.0,
    growth_window=30.0,
    leak_every=0.8,
    healthy=4.0,
    outage=2.5,
    mended=4.5,
    standing_every=2.0,
)
_STANDING_EVERY_AFTERWARDS = 60.0
#: What ought to happen must do so within so many times its usual time: machines are slow at times.
_PATIENCE = 3.0


def tell(*, once: bool) -> int:
    """Play the story; go on until Ctrl-C unless it is to be told once. Return the exit code."""
    configure_logs("auto", "error")
    speech.say("Starting PostgreSQL and the service ...")
    try:
        with running_postgres(settings={"max_connections": "30"}) as server:
            asyncio.run(_watch(server, _SHORT if once else _READABLE, stay=not once))
    except (PostgresUnavailableError, ServiceUnavailableError) as error:
        return _complain(str(error), 2)
    except NotAsToldError as error:
        return _complain(str(error), 1)
    speech.say("Ended. PostgreSQL, the service and their files are gone.")
    return 0


def _complain(mistake: str, code: int) -> int:
    sys.stderr.write(f"pgwatch-sessions: error: {mistake}\n")
    return code


async def _watch(server: Postgres, pace: Pace, *, stay: bool) -> None:
    await create_database(server)
    listener = _listener()
    watch = Watch(
        targets=(Target(name=_SERVER, dsn=server.dsn()),),
        interval=pace.interval,
        timeout=2.0,
        policy=Policy(hold_limit=pace.hold_limit, growth_window=pace.growth_window),
        parse=parse_statement,
    )
    async with running(watch, listener) as daemon:
        traffic = Traffic()
        stage = Stage(daemon.published, _SERVER, _CLIENT, traffic, standing_every=pace.standing_every)
        _introduce(url(listener), server)
        await _first_of(
            daemon.end,
            _play(server, stage, traffic, pace, stay=stay),
            stage.tell(),
            traffic.flow(),
        )


def _listener() -> socket.socket:
    try:
        return bind("127.0.0.1", 9488)
    except CannotListenError:
        return bind("127.0.0.1", 0)


async def _first_of(end: "asyncio.Future[None]", *others: Coroutine[Any, Any, None]) -> None:
    """Run all until the first is done, end the others, and raise what was raised."""
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


def _introduce(address: str, server: Postgres) -> None:
    speech.say("")
    speech.paragraph(
        f"An orders service (FastAPI, SQLAlchemy, asyncpg) works on a PostgreSQL of its own. Its pool opens at most "
        f"{CONNECTIONS} connections, which is also the limit of its role. pgwatch-sessions watches the server."
    )
    speech.say(
        f"\n  the page     {address}/\n  the metrics  {address}/metrics\n  PostgreSQL   {server.dsn(database=DATABASE)}"
    )


async def _play(server: Postgres, stage: Stage, traffic: Traffic, pace: Pace, *, stay: bool) -> None:
    async with deployed(server, fixed=False) as traffic.address:
        healthy = await _healthy(stage, pace)
        traffic.bad_every = pace.leak_every
        leaking = await _leaking(stage, pace)
        _begin_deployment(stage)
        began = time.monotonic()
    async with deployed(server, fixed=True) as traffic.address:
        _end_deployment(stage, time.monotonic() - began)
        fixed = await _fixed(stage, pace)
        stage.standing_every = _STANDING_EVERY_AFTERWARDS
        speech.say("\n" + table([("healthy", healthy), ("leaking", leaking), ("fixed", fixed)]))
        if stay:
            speech.say("\nIt all goes on, healthy: the page and the metrics are there to look at. Ctrl-C ends it.")
            await asyncio.Event().wait()


async def _healthy(stage: Stage, pace: Pace) -> Score:
    stage.begin_act(
        "1. Healthy",
        "Ten requests a second, to all routes. Each takes a connection from the pool and hands it back.",
    )
    await asyncio.sleep(pace.healthy)
    return await stage.score()


async def _leaking(stage: Stage, pace: Pace) -> Score:
    stage.begin_act(
        "2. Leaking",
        f"Every {pace.leak_every:g} s somebody now asks GET /orders for an order in an unknown currency. The handler "
        "raises before its last line, which was to close the session. Each time, a connection is lost.",
    )
    at_most = _PATIENCE * (pace.hold_limit + 4 * pace.leak_every)
    await stage.until(lambda: _leak(stage) is not None, at_most=at_most)
    leak = _leak(stage)
    if leak is None:
        raise NotAsToldError(f"the leak was not found within {at_most:.0f} s")
    _advise(stage, leak)
    at_most = _PATIENCE * (CONNECTIONS * pace.leak_every + POOL_TIMEOUT_SECONDS)
    if not await stage.until(lambda: stage.outcomes()[Outcome.REFUSED] > 0, at_most=at_most):
        raise NotAsToldError(f"the pool did not run out of connections within {at_most:.0f} s")
    text = f"the first request is refused (503): no connection came free in {POOL_TIMEOUT_SECONDS:g} s"
    speech.at(time.time(), text, speech.Tone.BAD)
    await asyncio.sleep(pace.outage)
    return await stage.score()


def _leak(stage: Stage) -> Finding | None:
    """Return the finding, once it says who leaks, where, how fast and how long there is left."""
    diagnosis = stage.told.diagnoses.get(_CLIENT)
    if diagnosis is None or diagnosis.verdict is not Verdict.LEAKING:
        return None
    return next(
        (
            finding
            for finding in stage.told.findings
            if (finding.key.client, finding.key.site) == (_CLIENT, _SITE)
            and finding.is_leak
            and finding.rate_per_minute > 0
            and math.isfinite(finding.exhaustion_seconds)
        ),
        None,
    )


def _advise(stage: Stage, leak: Finding) -> None:
    """Say what the daemon says of the finding."""
    sessions = stage.told.summary.snapshot.sessions if stage.told.summary else ()
    advice = advice_of(leak, [session for session in sessions if session.client == leak.key.client])
    speech.say("")
    speech.paragraph(f"The likely cause: {advice.cause}")
    speech.say("\nTo free its oldest connection by hand, and never that of a later session with its pid:\n")
    speech.say(words.broken(advice.terminate[0]) + "\n")


def _begin_deployment(stage: Stage) -> None:
    stage.begin_act(
        "3. Fixed",
        "`async with new_session() as session` closes it whichever way the block is left. The fixed service is "
        "deployed while the requests go on: the old process ends, a new one starts.",
    )


def _end_deployment(stage: Stage, seconds: float) -> None:
    unreached = stage.outcomes()[Outcome.UNREACHED]
    speech.at(time.time(), f"deployed in {seconds:.1f} s, in which {unreached} requests reached nobody")
    stage.begin_counting()


async def _fixed(stage: Stage, pace: Pace) -> Score:
    at_most = _PATIENCE * (pace.mended + pace.hold_limit)
    if not await stage.until(lambda: not stage.told.findings, at_least=pace.mended, at_most=at_most):
        raise NotAsToldError(f"the finding did not close within {at_most:.0f} s")
    return await stage.score()
