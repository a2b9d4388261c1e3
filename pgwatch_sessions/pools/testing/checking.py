"""Judges after each test which connections it has left out.

A connection belongs to what was running when it was taken: a test, or the setup of a fixture, which may last for
several tests. It is judged when all fixtures of that scope have been torn down: what a module's fixture keeps for the
tests is judged after the last of them.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pgwatch_sessions.pools.sites import resolve
from pgwatch_sessions.pools.testing.borrows import Borrow, Borrows, Opened, Owner
from pgwatch_sessions.pools.testing.drivers import backend_pid
from pgwatch_sessions.pools.testing.held_transactions import HeldTransaction, ServerUnseenError
from pgwatch_sessions.pools.testing.report import failure_text, leak_line, leak_lines, test_text
from pgwatch_sessions.pools.testing.watching import watched_borrows

if TYPE_CHECKING:
    from pgwatch_sessions.pools.testing.server_side import ServerSide

OFF, WARN, ERROR = MODES = ("off", "warn", "error")


class ConnectionLeakWarning(UserWarning):
    """A test has left a connection out."""


class MarkerError(Exception):
    """A marker is wrong; the text says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestConnections:
    """The value of the fixture `connection_leaks`."""

    __test__ = False  # it is no test class

    borrows: Borrows | None = None
    node: Any = None

    def left_out(self) -> tuple[Borrow, ...]:
        """Return what this test and its fixtures have taken and not returned; nothing if checks are off."""
        if self.borrows is None:
            return ()
        return self.borrows.left_out(lambda borrow: borrow.owner is not None and borrow.owner.node is self.node)


class LeakCheck:
    """The hooks that run at each test while tests are checked."""

    def __init__(self, borrows: Borrows, *, default: str, grace: float, server: "ServerSide | None") -> None:
        """`default` is the mode of tests that have no marker; `grace` is in seconds."""
        self._borrows = borrows
        self._default = default
        self._grace = grace
        self._server = server
        self._reported: set[HeldTransaction] = set()

    def connections_of(self, item: pytest.Item) -> TestConnections:
        """Return what the fixture shows to a test."""
        return TestConnections(borrows=self._borrows, node=item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        """Let what is taken from now on belong to the test."""
        self._borrows.owner = Owner(node=item)
        try:
            return (yield)
        finally:
            self._borrows.owner = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Iterator[Any]:
        """Let what a fixture takes belong to the fixture's scope."""
        before = self._borrows.owner
        self._borrows.owner = Owner(
            node=request.node, during=f"for the {fixturedef.scope} fixture `{fixturedef.argname}`"
        )
        try:
            return (yield)
        finally:
            self._borrows.owner = before

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[Any]:
        """Judge when every fixture that ends with this test has been torn down.

        The finalizer of a fixture would run too early, because other fixtures return their connections after it. The
        garbage collector is not run before: it would return what was forgotten.
        """
        try:
            result = yield
        except BaseException as error:
            text = self._judge(item, nextitem)
            if text:
                error.add_note(text)
            raise
        text = self._judge(item, nextitem)
        if text:
            pytest.fail(text, pytrace=False)
        return result

    def _judge(self, item: pytest.Item, nextitem: pytest.Item | None) -> str:
        """Return what is wrong, and give the warnings."""
        going_on = () if nextitem is None else nextitem.listchain()

        def is_over(borrow: Borrow) -> bool:
            return borrow.owner is not None and not any(borrow.owner.node is node for node in going_on)

        left = self._borrows.left_out(is_over, grace=self._grace)
        try:
            mode = mode_of(item, self._default)
            modes = [mode_of(borrow.owner.node, self._default) for borrow in left if borrow.owner is not None]
            on_server = () if mode == OFF else self._left_on_server()
        except (MarkerError, ServerUnseenError) as error:
            return str(error)
        finally:
            self._borrows.drop(left)
        if self._borrows.failure and mode != OFF:
            return failure_text(self._borrows.failure)
        _warn(
            [borrow for borrow, its in zip(left, modes, strict=True) if its == WARN], on_server if mode == WARN else ()
        )
        lines = leak_lines(borrow for borrow, its in zip(left, modes, strict=True) if its == ERROR)
        lines += on_server if mode == ERROR else ()
        return test_text(lines) if lines else ""

    def _left_on_server(self) -> Sequence[str]:
        """Return a line for each session that is left in a transaction although its connection is back."""
        if self._server is None:
            return ()
        taken = {borrow.connection for borrow in self._borrows.left_out(lambda _: True)}
        back = {
            pid: opened
            for connection, opened in self._borrows.connections()
            if id(connection) not in taken and (pid := backend_pid(connection)) is not None
        }
        held = self._server.left_in_transaction(back) if back else ()
        new = [each for each in held if each not in self._reported]
        self._reported.update(new)
        return [f"{each}; its connection was taken at {_site(back[each.pid])}" for each in new]

    def pytest_unconfigure(self) -> None:
        """End the connection to the server."""
        if self._server is not None:
            self._server.close()


def asks_for_check(item: pytest.Item) -> bool:
    """Tell whether a test asks to be checked, by a marker or by the fixture."""
    try:
        return mode_of(item, OFF) != OFF
    except MarkerError:
        return True  # its teardown says what is wrong


def mode_of(node: Any, default: str) -> str:
    """Return the mode of a test, or of a module, a class or the session for what their fixtures take."""
    allowed = node.get_closest_marker("allow_connection_leaks")
    if allowed is not None:
        if not (allowed.args or allowed.kwargs.get("reason")):
            raise MarkerError("the marker allow_connection_leaks needs a reason")
        return OFF
    marker = node.get_closest_marker("connection_leaks")
    if marker is None:
        return ERROR if default == OFF and "connection_leaks" in getattr(node, "fixturenames", ()) else default
    mode = str(marker.args[0] if marker.args else marker.kwargs.get("mode", ERROR))
    if mode not in MODES:
        raise MarkerError(f"the marker connection_leaks has {mode!r}, but must have one of {', '.join(MODES)}")
    return mode


def _warn(leaks: Iterable[Borrow], on_server: Iterable[str]) -> None:
    for line in on_server:
        warnings.warn(f"left out: {line}", ConnectionLeakWarning, stacklevel=1)
    for leak in leaks:
        text = f"left out: {leak_line(leak)}"
        if leak.site is None:
            warnings.warn(text, ConnectionLeakWarning, stacklevel=1)
        else:
            warnings.warn_explicit(text, ConnectionLeakWarning, leak.site.file, leak.site.line)


def _site(opened: Opened) -> str:
    return "an unknown place" if opened.place is None else str(resolve(opened.place))


def new_check(config: pytest.Config) -> LeakCheck:
    """Begin to watch, and return the hooks that judge."""
    grace = config.option.connection_leaks_grace
    dsn = config.option.connection_leaks_dsn
    server = None
    if dsn is not None:
        from pgwatch_sessions.pools.testing.server_side import ServerSide  # noqa: PLC0415  # it imports the daemon's core

        server = ServerSide(dsn, grace=grace)
        try:
            server.left_in_transaction(())
        except ServerUnseenError as error:
            server.close()
            raise pytest.UsageError(str(error)) from None
    return LeakCheck(watched_borrows(), default=default_mode(config), grace=grace, server=server)


def default_mode(config: pytest.Config) -> str:
    """Return the mode of tests without a marker. To name a server is to ask for checks."""
    return str(config.option.connection_leaks or (OFF if config.option.connection_leaks_dsn is None else ERROR))
