"""The live view in a test: with a source, at a size, with keys, as text and as a picture."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from textual.pilot import Pilot
from textual.widget import Widget

from pgwatch_sessions.top.running import feed
from pgwatch_sessions.top.sources import Source
from pgwatch_sessions.top.terminal_app import TopApp

#: Seconds for what should come at once, on a machine that has other work.
PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Shown:
    """The live view at work."""

    app: TopApp
    pilot: Pilot[None]

    def text(self) -> str:
        """Return the screen as text."""
        screen: Widget = self.app.screen
        width, height = self.app.size
        canvas = next(iter(screen.children))
        return "\n".join(canvas.render_line(y).text[:width].rstrip() for y in range(height))

    async def until(self, condition: Callable[[str], bool]) -> str:
        """Return the first screen of which the condition holds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not condition(self.text()):
                    await self.pilot.pause(0.02)
        text = self.text()
        assert condition(text), text
        return text

    def picture(self, title: str) -> str:
        """Return the screen as an SVG document."""
        return self.app.export_screenshot(title=title)


@contextlib.asynccontextmanager
async def shown(source: Source, *, columns: int = 80, rows: int = 24, interval: float = 0.1) -> AsyncIterator[Shown]:
    """Run the live view without a terminal until the block ends; the source is closed then."""
    try:
        app = TopApp(await source.view(None))
        async with app.run_test(size=(columns, rows)) as pilot:
            feeding = asyncio.create_task(feed(app, source, interval=interval))
            try:
                yield Shown(app, pilot)
            finally:
                feeding.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await feeding
    finally:
        await source.close()
