"""The live view as Textual draws it, with a real server and with a real daemon; a picture of it is left in build/."""

import os
import signal
from pathlib import Path

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.top.daemon_api import DaemonApi
from pgwatch_sessions.top.sources import PolledServers, RunningDaemon, Source
from tests.support.daemons import daemon
from tests.support.servers import Database
from tests.support.situations import idle, idle_in_transaction
from tests.support.top_app import shown

PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
LEAKED = "SELECT 's3cret' /*route='/orders/{id}'*/"


def source_of(database: Database) -> Source:
    """Poll the database's server."""
    connection = HeldConnection(
        Target(name="shop-db", dsn=database.dsn()), timeout=5, parse=parse_statement, jitter=lambda limit: limit
    )
    return PolledServers({"shop-db": connection}, Policy(hold_limit=1.0), patience=5)


async def test_a_live_leak_is_shown_opened_and_copied(database: Database) -> None:
    """From the server itself; its picture is written for people to look at."""
    with (
        idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED) as pid,
        idle(database.dsn(application_name="checkout"), 3),
    ):
        async with shown(source_of(database), columns=100, rows=30) as top:
            await top.until(lambda text: f"orders-api ({database.name}" in text and "NOTICE" in text)
            PICTURES.mkdir(parents=True, exist_ok=True)
            for name in ("top", "top-finding"):
                partial = PICTURES / f".{name}.{os.getpid()}"
                partial.write_text(top.picture("pgwatch-sessions top"))
                partial.replace(PICTURES / f"{name}.svg")
                await top.pilot.press("enter")
            assert f" {pid} " in await top.until(lambda text: "likely cause" in text)
            await top.pilot.press("y")
            await top.until(lambda text: "Sent to the clipboard" in text)
            assert str(pid) in top.app.clipboard
            assert "pg_terminate_backend" in top.app.clipboard
    assert "s3cret" not in (PICTURES / "top-finding.svg").read_text()
    assert "<svg" in (PICTURES / "top.svg").read_text()


async def test_a_daemon_is_shown_and_its_end_is_said(database: Database) -> None:
    """The last view stays, below a line that says why there is no newer one."""
    with (
        idle_in_transaction(database.dsn(application_name="orders-api")),
        daemon("--hold-limit", "1s", "--name", "shop-db", dsn=database.dsn()) as running,
    ):
        async with shown(RunningDaemon(DaemonApi(running.address))) as top:
            await top.until(lambda text: f"orders-api ({database.name}" in text and "NOTICE" in text)
            await top.pilot.press("slash", *"orders", "enter", "end", "enter")
            await top.until(lambda text: "\n1 session\n" in text)
            await top.pilot.press("escape")
            assert running.end_by(signal.SIGTERM) == 0
            text = await top.until(lambda text: "does not answer" in text)
            assert "NOTICE" in text


async def test_a_pause_keeps_the_screen_while_polls_go_on(database: Database) -> None:
    """After it, the screen is that of now."""
    async with shown(source_of(database)) as top:
        await top.until(lambda text: "polled" in text)
        await top.pilot.press("p")
        before = await top.until(lambda text: "PAUSED" in text)
        with idle(database.dsn(application_name="latecomer")):
            await top.pilot.pause(0.5)
            assert top.text() == before
            await top.pilot.press("p")
            await top.until(lambda text: "latecomer" in text)


async def test_the_screen_follows_the_size_of_the_terminal(database: Database) -> None:
    """The keys stay in the last line."""
    async with shown(source_of(database)) as top:
        await top.until(lambda text: "polled" in text)
        await top.pilot.resize_terminal(120, 40)
        text = await top.until(lambda text: len(text.splitlines()) == 40)
        assert text.splitlines()[-1].startswith("Enter open")
