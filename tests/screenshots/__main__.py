"""`python -m tests.screenshots [FOLDER]`: write pictures of the page and of `top` while a service leaks.

Needs Chromium. The pictures in docs/images are made with this.
"""

import argparse
import asyncio
import base64
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pgwatch_sessions.top.daemon_api import DaemonApi
from pgwatch_sessions.top.sources import RunningDaemon
from tests.screenshots.scene import leaking_service
from tests.support.browser import CHROMIUM, Tab, browser_tab
from tests.support.daemons import Daemon, daemon
from tests.support.top_app import shown

_SETTINGS = """\
hold_limit: 10s
growth_window: 1m
servers:
  - name: shop-db
    dsn: %s
"""
#: Width and height in pixels of each picture of the page. A height of None is that of the whole page.
_PAGES: Mapping[str, tuple[int, int | None]] = {
    "page": (1100, 940),
    "page-whole": (1100, None),
    "page-phone": (400, None),
}
#: The same, of each picture of the terminal.
_TERMINAL = (1100, 520)


def main() -> int:
    """Write all pictures, and print where they are."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("build", "screenshots"))
    folder: Path = parser.parse_args().folder
    if CHROMIUM is None:
        sys.stderr.write("error: Chromium is missing; on Debian and Ubuntu: apt install chromium\n")
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, leaking_service() as server:
        settings = Path(temporary, "pgwatch-sessions.yaml")
        settings.write_text(_SETTINGS % server.dsn())
        with daemon("--config", str(settings), interval="1s") as watching:
            drawings = asyncio.run(_of_top(watching))
            with browser_tab(Path(temporary, "profile"), "--hide-scrollbars") as tab:
                for name, picture in (*_of_page(tab, watching), *_as_pictures(tab, drawings, Path(temporary))):
                    file = folder / f"{name}.png"
                    file.write_bytes(picture)
                    sys.stdout.write(f"{file}\n")
    return 0


def _of_page(tab: Tab, watching: Daemon) -> Iterator[tuple[str, bytes]]:
    for name, (width, height) in _PAGES.items():
        _resize(tab, width, height or 800)
        tab.open(f"{watching.address}/?refresh=off")
        if height is None:
            _resize(tab, width, tab.evaluate("document.documentElement.scrollHeight"))
        yield name, _picture(tab)


def _as_pictures(tab: Tab, drawings: Mapping[str, str], folder: Path) -> Iterator[tuple[str, bytes]]:
    for name, drawing in drawings.items():
        file = folder / f"{name}.svg"
        file.write_text(drawing)
        _resize(tab, *_TERMINAL)
        tab.open(file.as_uri())
        yield name, _picture(tab)


def _resize(tab: Tab, width: int, height: int) -> None:
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


def _picture(tab: Tab) -> bytes:
    return base64.b64decode(tab.send("Page.captureScreenshot", format="png")["data"])


async def _of_top(watching: Daemon) -> Mapping[str, str]:
    """Return drawings in SVG, as soon as the leak is critical."""
    async with (
        asyncio.timeout(90),
        shown(RunningDaemon(DaemonApi(watching.address)), columns=110, rows=24, interval=1.0) as top,
    ):
        while "CRITICAL" not in top.text():
            await top.pilot.pause(0.5)
        overview = top.picture("pgwatch-sessions top")
        await top.pilot.press("enter")
        await top.until(lambda text: "likely cause" in text)
        return {"top": overview, "top-finding": top.picture("pgwatch-sessions top")}


if __name__ == "__main__":
    sys.exit(main())
