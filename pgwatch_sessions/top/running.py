"""Runs the live view: reads views at intervals, and draws them until the person quits."""

import asyncio
import contextlib

from pgwatch_sessions.top.daemon_api import SourceError
from pgwatch_sessions.top.sources import Source
from pgwatch_sessions.top.terminal_app import TopApp


async def run_top(source: Source, *, interval: float) -> None:
    """Show what the source returns until the person quits. Raises SourceError if it returns nothing at the start."""
    try:
        app = TopApp(await source.view(None))
        # A task of our own: Textual would print an error of ours with the values of all variables.
        feeding = asyncio.create_task(feed(app, source, interval=interval))
        feeding.add_done_callback(lambda _: app.exit())
        try:
            await app.run_async(mouse=False)
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding
    finally:
        await source.close()


async def feed(app: TopApp, source: Source, *, interval: float) -> None:
    """Give the app a view at each interval, and at once when it wants the sessions of a client."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(interval):
                await app.wanted.wait()
        app.wanted.clear()
        try:
            app.show(await source.view(app.opened))
        except SourceError as error:
            app.show_problem(str(error))
