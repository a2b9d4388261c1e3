"""The pytest plugin: fails a test that leaves connections out, and names the line that took each.

It is off unless a project asks for it. It comes with a package that people also install for its command, and an
upgrade of that must not fail anybody's tests. While it is off, it adds its options and nothing else: no hook runs at a
test, and no database library is imported.
"""

import argparse

import pytest

from pgwatch_sessions.pools.testing.checking import (
    MODES,
    OFF,
    LeakCheck,
    TestConnections,
    asks_for_check,
    default_mode,
    new_check,
)

_MARKERS = (
    "connection_leaks(mode='error'): what to do about connections that the test leaves out: 'error', 'warn' or 'off'",
    "allow_connection_leaks(reason): the test may leave connections out; the reason is for its readers",
)
_LONGEST_GRACE = 60
_CHECK = "pgwatch_sessions_connection_leaks"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("connection leaks", "connection leaks (pgwatch-sessions)")
    group.addoption(
        "--connection-leaks",
        choices=MODES,
        help="What to do about database connections that a test leaves out: fail it at its teardown (error), warn, or "
        "nothing (off). Without this option only tests with the marker or the fixture connection_leaks are checked.",
    )
    group.addoption(
        "--connection-leaks-dsn",
        metavar="DSN",
        help="After each checked test, also ask this PostgreSQL server which sessions of this process are idle in "
        "transaction, although nobody has their connection. The role must be that of the tests, or in pg_monitor.",
    )
    group.addoption(
        "--connection-leaks-grace",
        metavar="SECONDS",
        type=_seconds,
        default=1.0,
        help="How long other threads and the server may take to return a connection (default: %(default)s).",
    )


def _seconds(text: str) -> float:
    """Return a number of seconds; pytest shows the error as wrong usage."""
    seconds = float(text)
    if not 0 < seconds <= _LONGEST_GRACE:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most {_LONGEST_GRACE} seconds")
    return seconds


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers; begin to watch if every test is to be checked."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if default_mode(config) != OFF:
        _begin(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to watch if some of the tests ask for it."""
    if session.config.option.connection_leaks is None and any(map(asks_for_check, session.items)):
        _begin(session.config)


def _begin(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin(_CHECK):
        config.pluginmanager.register(new_check(config), _CHECK)


@pytest.fixture
def connection_leaks(request: pytest.FixtureRequest) -> TestConnections | None:
    """Check this test for connections that it leaves out, and show them meanwhile: `connection_leaks.left_out()`."""
    check = request.config.pluginmanager.get_plugin(_CHECK)
    return check.connections_of(request.node) if isinstance(check, LeakCheck) else TestConnections()
