"""What a running daemon holds: tasks and threads, which it tells itself, and descriptors, which Linux tells."""

import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.waiting import until

_ADDED = Path(__file__).parent / "in_daemon"


def observable(file: Path, *, hosts: Path | None = None) -> Mapping[str, str]:
    """Return the environment variables of a daemon that can be asked by `held_by`, through this file.

    With `hosts`, it looks up names in that file.
    """
    named = {"HOSTS_FILE": str(hosts)} if hosts else {}
    return {"PYTHONPATH": str(_ADDED), "INSIDE_FILE": str(file), **named}


class Held(NamedTuple):
    """What a process holds at one moment."""

    tasks: Counter[str]
    #: Without those of asyncio's pool, which are used again, and are never more than six on two cores.
    threads: Counter[str]
    #: By what they lead to: sockets, pipes, or the folder of a file.
    descriptors: Counter[str]

    def beyond(self, before: "Held") -> str:
        """Say what is held now and was not before; nothing if that is nothing."""
        more = [now - then for now, then in zip(self, before, strict=True)]
        return ", ".join(sorted(name for each in more for name in each))

    def common(self, other: "Held") -> "Held":
        """Return what was held at both moments."""
        return Held(*(mine & others for mine, others in zip(self, other, strict=True)))


def held_by(pid: int, file: Path) -> Held:
    """Ask the process. It answers as soon as its event loop turns."""
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    until(file.exists)
    inside = json.loads(file.read_text())
    return Held(
        tasks=Counter(inside["tasks"]),
        threads=Counter(name for name in inside["threads"] if not name.startswith("asyncio_")),
        descriptors=Counter(descriptors_of(pid)),
    )


def descriptors_of(pid: int) -> list[str]:
    """Return what each open descriptor leads to: `socket`, `pipe`, the folder of a file, or a file that is deleted."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            place = str(descriptor.readlink())
            is_file = place.startswith("/") and not place.endswith(" (deleted)")
            found.append(str(Path(place).parent) if is_file else place.partition(":[")[0])
    return found
