import asyncio
import contextlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from sqlalchemy.util import greenlet_spawn

from pgwatch_sessions.pools import sites
from pgwatch_sessions.pools.sites import CodePlace, Site, capture_stack, resolve


def capture() -> CodePlace | None:
    """Look for the borrower as the method of a pool does, which is passed over."""
    return sites.capture()


def _line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def _site(place: CodePlace | None) -> Site:
    assert place is not None
    return resolve(place)


def _compiled(path: Path, source: str) -> ModuleType:
    module = ModuleType("compiled")
    exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102  # code with a file name of its own
    return module


class Orders:
    """A class with a method that borrows."""

    def read(self) -> tuple[CodePlace | None, int]:
        """Borrow."""
        return capture(), _line()


def test_a_site_is_the_calling_line_and_its_function() -> None:
    """The path is relative to the directory in which the process started."""
    place, line = Orders().read()

    assert _site(place) == Site(file="tests/pools/test_sites.py", line=line, function="Orders.read")
    assert str(_site(place)) == f"tests/pools/test_sites.py:{line} in Orders.read"


def test_code_of_the_standard_library_is_skipped() -> None:
    """Contextlib calls the generator, which is the application's; the frame between them is not."""

    @contextlib.contextmanager
    def borrowing() -> Iterator[CodePlace | None]:
        with contextlib.nullcontext(capture()) as place:
            yield place

    def by_map() -> tuple[CodePlace | None, int]:
        return sys.modules["functools"].reduce(lambda _, __: capture(), [1, 2]), _line()

    with borrowing() as place:
        assert _site(place).function == "borrowing"
    place, line = by_map()
    assert (_site(place).line, _site(place).function) == (line, "<lambda>")


def test_a_library_between_the_borrower_and_the_pool_is_skipped(tmp_path: Path) -> None:
    """The line in SQLAlchemy that checks out is the same for all."""
    library = tmp_path / "site-packages" / "sqlalchemy" / "pool.py"
    module = _compiled(library, "def checkout(capture):\n    return capture()\n")

    def read_order() -> tuple[CodePlace | None, int]:
        return module.checkout(capture), _line()

    place, line = read_order()
    assert (_site(place).function, _site(place).line) == ("read_order", line)


def test_an_application_in_site_packages_is_found_if_nothing_else_is(tmp_path: Path) -> None:
    """`pip install .` in a container puts the application beside the libraries."""
    application = _compiled(
        tmp_path / "site-packages" / "shop" / "orders.py", "def read_order(borrow):\n\n    return borrow()\n"
    )
    library = _compiled(
        tmp_path / "site-packages" / "psycopg_pool" / "pool.py",
        "import threading\n"
        "def in_thread(call, capture):\n"
        "    got = []\n"
        "    thread = threading.Thread(target=lambda: got.append(call(capture)))\n"
        "    thread.start(); thread.join()\n"
        "    return got[0]\n",
    )

    assert str(_site(library.in_thread(application.read_order, capture))) == "shop/orders.py:3 in read_order"


def test_a_thread_of_library_code_only_has_no_site(tmp_path: Path) -> None:
    """As a pool's own worker thread."""
    library = _compiled(
        tmp_path / "site-packages" / "psycopg_pool" / "pool.py",
        "from pgwatch_sessions.pools.sites import capture, capture_stack\nimport threading\n"
        "def in_thread():\n"
        "    got = []\n"
        "    thread = threading.Thread(target=lambda: got.extend([capture(), capture_stack()]))\n"
        "    thread.start(); thread.join()\n"
        "    return got\n",
    )

    assert library.in_thread() == [None, ()]


async def test_the_search_goes_on_where_a_greenlet_was_started() -> None:
    """Without this, the borrower of every async SQLAlchemy session would be SQLAlchemy."""

    async def read_order() -> tuple[CodePlace | None, int]:
        return await greenlet_spawn(eval, "capture()", {"capture": capture}), _line()

    place, line = await read_order()
    assert (_site(place).function, _site(place).line) == ("read_order", line)


async def test_a_stack_has_the_applications_lines_from_the_innermost_outwards() -> None:
    """Awaiting coroutines are on the stack, and greenlets are followed."""

    async def borrow() -> tuple[CodePlace, ...]:
        await asyncio.sleep(0)
        return await greenlet_spawn(capture_stack)

    async def handler() -> tuple[CodePlace, ...]:
        return await borrow()

    functions = [resolve(place).function for place in await handler()]
    assert functions[:2] == ["borrow", "handler"]


def test_a_stack_is_cut_at_the_limit() -> None:
    """A recursion must not make a checkout slow."""

    def deep(levels: int) -> tuple[CodePlace, ...]:
        return deep(levels - 1) if levels else capture_stack(5)

    assert len(deep(50)) == 5


def test_code_that_lends_connections_can_be_left_out() -> None:
    """An application's own pool class is not the borrower."""

    def lend() -> CodePlace | None:
        return sites.capture({lend.__code__}, skip=1)

    assert _site(lend()).function == "test_code_that_lends_connections_can_be_left_out"


def test_more_frames_than_there_are_cannot_be_skipped() -> None:
    """A greenlet begins with none."""
    assert _site(sites.capture(skip=10_000)).function == "test_more_frames_than_there_are_cannot_be_skipped"
