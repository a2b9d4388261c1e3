"""`python -m tests.screenshots [FOLDER]`: write pictures of the page, of `top` and of the log while a service leaks.

Needs Chromium.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.screenshots.scene import leaking_service
from tests.support.daemons import Daemon, daemon
from tests.support.waiting import until

#: Width and height in pixels of each picture of the page.
_SIZES = {"page": (1100, 1000), "page-phone": (400, 2400)}
_SETTINGS = """\
hold_limit: 10s
growth_window: 1m
servers:
  - name: shop-db
    dsn: %s
"""


def main() -> int:
    """Write all pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("build", "screenshots"))
    folder: Path = parser.parse_args().folder
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.stderr.write("error: Chromium is missing; on Debian and Ubuntu: apt install chromium\n")
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    with (
        leaking_service() as server,
        tempfile.NamedTemporaryFile("w", suffix=".yaml") as settings,
    ):
        settings.write(_SETTINGS % server.dsn())
        settings.flush()
        with daemon("--config", settings.name, interval="1s") as watching:
            _until_critical(watching)
            _pictures_of_page(browser, watching, folder)
    return 0


def _until_critical(watching: Daemon) -> None:
    def criticals() -> Sequence[Mapping[str, object]]:
        return [event for event in watching.events("leak_changed") if event["severity"] == "critical"]

    until(criticals, within=60)


def _pictures_of_page(browser: str, watching: Daemon, folder: Path) -> None:
    for name, (width, height) in _SIZES.items():
        picture = folder / f"{name}.png"
        take(browser, f"{watching.address}/?refresh=off", picture, width=width, height=height)
        sys.stdout.write(f"{picture}\n")


def take(browser: str, address: str, picture: Path, *, width: int, height: int) -> None:
    """Take a picture of a page as a browser with a window of this size shows it."""
    with tempfile.TemporaryDirectory() as profile:
        options = (
            "--headless",
            "--no-sandbox",  # root may not use the sandbox
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            f"--screenshot={picture.resolve()}",
        )
        subprocess.run([browser, *options, address], check=True, capture_output=True, timeout=60)


if __name__ == "__main__":
    sys.exit(main())
