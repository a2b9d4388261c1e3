"""Finds the line of the application that borrows a connection.

At a checkout only a code object and an instruction offset are taken, which costs 0.5 to 5 µs. The line number is looked
up when somebody reads it. Frames are never kept: a frame keeps its local variables alive, and with them the connection.
"""

import re
import sys
import sysconfig
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

#: A code object and the offset of the instruction that was running in it.
CodePlace = tuple[CodeType, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A line of code, printed as `orders.py:41 in read_order`."""

    #: Relative to the working directory, to site-packages or to a folder of sys.path; else absolute.
    file: str
    line: int
    #: The name of the function, with its class if it has one: `Orders.read`.
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def capture(without: Container[CodeType] = (), skip: int = 2) -> CodePlace | None:
    """Return the innermost place in the application's code, without libraries; None if there is only library code.

    `without` is code of the application that lends connections, such as a pool class of its own. `skip` is how many
    inner frames to pass over unseen, this function's own included: to look at a frame costs 0.1 µs.

    SQLAlchemy runs the synchronous part of an async engine in a greenlet, where the Python stack ends. The search goes
    on in the greenlet that started it.
    """
    installed: CodePlace | None = None
    try:
        frame: FrameType | None = sys._getframe(skip)  # noqa: SLF001  # there is no public way without a traceback
    except ValueError:  # a greenlet began with fewer frames
        frame = sys._getframe()  # noqa: SLF001  # as above
    current = None
    while True:
        while frame is not None:
            code = frame.f_code
            kind = _kinds.get(code.co_filename) or _kind(code.co_filename)
            if kind != _LIBRARY and code not in without and (kind != _GENERATED or _is_main(frame)):
                if kind != _INSTALLED:
                    return code, frame.f_lasti
                installed = installed or (code, frame.f_lasti)
            frame = frame.f_back
        greenlet = sys.modules.get("greenlet")
        if greenlet is None:
            return installed
        current = (current or greenlet.getcurrent()).parent
        if current is None:
            return installed
        frame = current.gr_frame


def capture_stack(limit: int = 20) -> tuple[CodePlace, ...]:
    """Return the places in the application's code from the innermost outwards, without libraries, at most `limit`."""
    places: list[CodePlace] = []
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # as in `capture`
    current = None
    while len(places) < limit:
        if frame is None:
            greenlet = sys.modules.get("greenlet")
            current = greenlet and (current or greenlet.getcurrent()).parent
            if current is None:
                break
            frame = current.gr_frame
            continue
        code = frame.f_code
        kind = _kinds.get(code.co_filename) or _kind(code.co_filename)
        if kind == _APPLICATION or (kind == _GENERATED and _is_main(frame)):
            places.append((code, frame.f_lasti))
        frame = frame.f_back
    if not places and (only := capture()) is not None:
        places.append(only)
    return tuple(places)


def resolve(place: CodePlace) -> Site:
    """Return the file, line and function of a place."""
    code, offset = place
    key = (id(code), offset)
    known = _sites.get(key)
    if known is not None:
        return known[1]
    site = Site(file=_shown(code.co_filename), line=_line(code, offset), function=_function(code))
    if len(_sites) >= _MOST_KNOWN:
        _sites.clear()
    _sites[key] = (code, site)
    return site


#: What a source file is. A borrower is looked for in the application first, then in installed packages.
_APPLICATION, _INSTALLED, _LIBRARY, _GENERATED = 1, 2, 3, 4

_MOST_KNOWN = 10_000

_kinds: dict[str, int] = {}
#: The code object is kept so that no other one gets its id.
_sites: dict[tuple[int, int], tuple[CodeType, Site]] = {}

_SITE_PACKAGES = re.compile(r".*[/\\](?:site|dist)-packages[/\\](.+)")
_OWN_FOLDER = str(Path(__file__).parent) + "/"
_STANDARD_LIBRARY = tuple(
    {str(Path(sysconfig.get_path(name)).resolve()) + "/" for name in ("stdlib", "platstdlib")}
    | {sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib", "scripts")}
)

#: Installed packages that borrow connections for others or call the application. An application that is itself
#: installed in site-packages is found by leaving these out.
# fmt: off
_LIBRARIES = frozenset(
    (
        "_pytest", "aiohttp", "alembic", "anyio", "apscheduler", "arq", "asgiref", "asyncpg", "billiard", "celery",
        "concurrent", "databases", "django", "fastapi", "flask", "flask_sqlalchemy", "gevent", "greenlet",
        "gunicorn", "hypercorn", "kombu", "opentelemetry", "pluggy", "psycopg", "psycopg2", "psycopg_binary",
        "psycopg_c", "psycopg_pool", "pytest", "pytest_asyncio", "sqlalchemy", "sqlmodel", "starlette", "structlog",
        "tenacity", "uvicorn", "uvloop", "werkzeug", "wrapt", "xdist",
    )
)
# fmt: on


def _kind(filename: str) -> int:
    if filename.startswith("<"):
        kind = _LIBRARY if filename.startswith("<frozen") else _GENERATED
    elif filename.startswith(_OWN_FOLDER):
        kind = _LIBRARY
    elif (found := _SITE_PACKAGES.match(filename)) is not None:
        package = re.split(r"[/\\.]", found[1], maxsplit=1)[0]
        kind = _LIBRARY if package in _LIBRARIES else _INSTALLED
    else:
        kind = _LIBRARY if filename.startswith(_STANDARD_LIBRARY) else _APPLICATION
    if len(_kinds) >= _MOST_KNOWN:
        _kinds.clear()
    _kinds[filename] = kind
    return kind


def _is_main(frame: FrameType) -> bool:
    """Tell whether code without a file is the program itself, as of `python -c`."""
    return frame.f_globals.get("__name__") == "__main__"


def _working_directory() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return None


#: Taken at import: a program that changes its directory later still shows paths relative to where it was started.
_STARTED_IN = _working_directory()


def _shown(filename: str) -> str:
    found = _SITE_PACKAGES.match(filename)
    if found is not None:
        return found[1]
    folders = [_STARTED_IN] if _STARTED_IN else []
    folders += sorted((folder for folder in sys.path if folder), key=len, reverse=True)
    for folder in folders:
        prefix = folder.rstrip("/") + "/"
        if prefix != "/" and filename.startswith(prefix):
            return filename[len(prefix) :]
    return filename


def _line(code: CodeType, offset: int) -> int:
    for start, end, line in code.co_lines():
        if start <= offset < end and line is not None:
            return line
    return code.co_firstlineno


def _function(code: CodeType) -> str:
    return code.co_qualname.rpartition("<locals>.")[2]
