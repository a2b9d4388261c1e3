"""The pytest plugin in suites of its own: which tests it fails, with which line, and when it does nothing at all."""

import re
import textwrap
from pathlib import Path

import pytest

from tests.pools.testing.suite_runs import copy_suite, run_suite
from tests.support.servers import Database
from tests.support.situations import idle_in_transaction, role

XDIST = ("-n", "2", "--dist", "load")


def written(folder: Path, text: str) -> Path:
    """Write a suite of one module."""
    file = folder / "test_orders.py"
    file.write_text(textwrap.dedent(text).lstrip())
    return folder


def marked_lines(file: Path) -> dict[str, int]:
    """Return the line that leaks in each test, or in the fixture that it uses."""
    lines, test = {}, ""
    for number, line in enumerate(file.read_text().splitlines(), 1):
        name = re.match(r"(?:async )?def (\w+)", line)
        test = {"forgetful": "test_fixture"}.get(name[1], name[1]) if name else test
        if line.endswith("# leak"):
            lines[test] = number
    return lines


@pytest.mark.parametrize("arguments", [(), XDIST], ids=["alone", "xdist"])
def test_every_leak_is_found_with_its_line(database: Database, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Of pools and plain connections, sync and async, from threads, tasks and fixtures. Each test is told its own."""
    file = copy_suite("leaks", tmp_path)
    run = run_suite(tmp_path, "--connection-leaks=error", *arguments, dsn=database.dsn())
    expected = marked_lines(file)
    found = run.left_out()
    assert found.keys() == expected.keys()
    for test, (line,) in found.items():
        assert f" at {file.name}:{expected[test]} in " in line
    assert len(expected) > 20
    assert run.exit_code == 1


@pytest.mark.parametrize("arguments", [(), XDIST], ids=["alone", "xdist"])
def test_what_is_returned_is_no_leak(database: Database, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Also not connections that fixtures of a module or the session share, nor idle ones in pools."""
    copy_suite("returns", tmp_path)
    run = run_suite(tmp_path, "-W", "error", "--connection-leaks=error", *arguments, dsn=database.dsn())
    assert (run.exit_code, run.left_out()) == (0, {}), run.output
    server = run_suite(tmp_path, f"--connection-leaks-dsn={database.dsn()}", *arguments, dsn=database.dsn())
    assert (server.exit_code, server.left_out()) == (0, {}), server.output


def test_the_server_shows_what_no_pool_does(database: Database, tmp_path: Path) -> None:
    """Sessions of this process that are idle in transaction, each once; not those of a fixture, nor of others."""
    file = copy_suite("only_the_server", tmp_path)
    alone = run_suite(tmp_path, "--connection-leaks=error", "-k", "not somebody", dsn=database.dsn())
    assert (alone.exit_code, alone.left_out()) == (0, {}), alone.output
    with idle_in_transaction(database.dsn(application_name="somebody")) as others:
        run = run_suite(
            tmp_path, f"--connection-leaks-dsn={database.dsn()}", "--connection-leaks-grace=0.3", dsn=database.dsn()
        )
    found = run.left_out()
    assert {test: int(re.findall(r":(\d+) in ", line)[0]) for test, (line,) in found.items()} == marked_lines(file)
    for (line,) in found.values():
        assert re.search(r"^session \d+, idle in transaction on the server, last at SELECT pg_class; ", line)
        assert f"session {others}," not in line


def test_the_connection_that_django_keeps_is_not_left_out(database: Database, tmp_path: Path) -> None:
    """Neither while it is in a class's transaction nor later. Other connections in the same tests are."""
    copy_suite("in_django", tmp_path)
    run = run_suite(tmp_path, f"--connection-leaks-dsn={database.dsn()}", dsn=database.dsn())
    assert run.counts == {"passed": 3, "error": 1}, run.output
    assert run.left_out() == {
        "OrdersTest.test_third": ["psycopg connection, opened at test_in_django.py:42 in OrdersTest.test_third"]
    }


def test_a_server_that_cannot_be_asked_is_an_error(tmp_path: Path) -> None:
    """A gate that sees nothing must not pass."""
    written(tmp_path, "def test_nothing():\n    pass\n")
    run = run_suite(tmp_path, "--connection-leaks-dsn=postgresql://127.0.0.1:1/nowhere")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert re.search(r"^ERROR: --connection-leaks-dsn: .*refused", run.output, re.MULTILINE), run.output


@pytest.mark.parametrize("seconds", ["0", "-1", "61", "soon"])
def test_a_wrong_grace_is_an_error(tmp_path: Path, seconds: str) -> None:
    """It is at most a minute."""
    run = run_suite(tmp_path, f"--connection-leaks-grace={seconds}")
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert "argument --connection-leaks-grace: " in run.output


def test_a_role_that_sees_too_little_fails_the_tests(database: Database, tmp_path: Path) -> None:
    """It could not tell that nothing is wrong. The error says what to grant."""
    text = """
        import os

        import pytest

        @pytest.fixture(scope="module")
        def engine():
            from sqlalchemy import create_engine

            return create_engine(os.environ["TEST_DSN"].replace("postgresql:", "postgresql+psycopg:"))

        def test_it(engine):
            with engine.connect():
                pass
    """
    with role(database.dsn(), "weak"):
        run = run_suite(
            written(tmp_path, text), f"--connection-leaks-dsn={database.dsn(user='weak')}", dsn=database.dsn()
        )
    assert (run.exit_code, run.counts) == (1, {"passed": 1, "error": 1}), run.output
    unseen = "--connection-leaks-dsn: the role may not see the state of the tests' sessions: GRANT pg_monitor to it\n"
    assert f"___\n{unseen}===" in run.output


FIXTURES = """
    import psycopg
    import pytest
    from os import environ

    def connect():
        return psycopg.connect(environ["TEST_DSN"])

    KEPT = []

    @pytest.fixture(scope="module")
    def shared():
        KEPT.append(connect())

    def test_first(shared):
        pass

    def test_last():
        pass

    class TestClass:
        @pytest.fixture(scope="class", autouse=True)
        def own(self):
            KEPT.append(connect())

        def test_a(self):
            pass

        def test_b(self):
            pass
"""


def test_a_fixture_is_judged_when_it_is_over(database: Database, tmp_path: Path) -> None:
    """The last test of its scope gets the error, which names the fixture."""
    run = run_suite(written(tmp_path, FIXTURES), "--connection-leaks=error", dsn=database.dsn())
    assert run.left_out() == {
        "TestClass.test_b": [
            "psycopg connection, opened at test_orders.py:6 in connect for the module fixture `shared`",
            "psycopg connection, opened at test_orders.py:6 in connect for the class fixture `own`",
        ]
    }


MODES = """
    import pytest
    import sqlalchemy

    engine = sqlalchemy.create_engine("sqlite://")
    KEPT = []

    def leak():
        KEPT.append(sqlalchemy.create_engine("sqlite://").connect())

    def test_plain():
        leak()

    @pytest.mark.connection_leaks
    def test_marked():
        leak()

    @pytest.mark.connection_leaks("warn")
    def test_warned():
        leak()

    @pytest.mark.connection_leaks("off")
    def test_off():
        leak()

    @pytest.mark.allow_connection_leaks("kept for notifications")
    def test_allowed():
        leak()

    def test_fixture(connection_leaks):
        assert connection_leaks.left_out() == ()
        leak()
        [left] = connection_leaks.left_out()
        assert str(left.site) == "test_orders.py:8 in leak"
"""


def test_tests_can_ask_for_the_check_or_allow_a_leak(tmp_path: Path) -> None:
    """Without the option, only a marker and the fixture switch it on; an option is the mode of the other tests."""
    written(tmp_path, MODES)
    assert run_suite(tmp_path).left_out().keys() == {"test_marked", "test_fixture"}
    failed = {"test_plain", "test_marked", "test_fixture"}
    assert run_suite(tmp_path, "--connection-leaks=error").left_out().keys() == failed
    warned = run_suite(tmp_path, "--connection-leaks=warn", "-k", "plain or warned or allowed")
    assert (warned.exit_code, warned.counts) == (0, {"passed": 3, "deselected": 3, "warning": 2})
    assert (
        "  test_orders.py:8: ConnectionLeakWarning: left out: SQLAlchemy connection, taken at "
        "test_orders.py:8 in leak" in warned.output
    )


def test_off_switches_everything_off(tmp_path: Path) -> None:
    """Also the markers. The fixture shows nothing."""
    written(tmp_path, MODES)
    run = run_suite(tmp_path, "--connection-leaks=off", "-k", "not fixture")
    assert (run.exit_code, run.counts) == (0, {"passed": 5, "deselected": 1}), run.output


@pytest.mark.parametrize(
    ("marker", "error"),
    [
        ("connection_leaks('eror')", "has 'eror', but must have one of off, warn, error"),
        ("allow_connection_leaks", "needs a reason"),
    ],
)
def test_a_wrong_marker_is_an_error(tmp_path: Path, marker: str, error: str) -> None:
    """It must not be taken for another mode."""
    text = f"import pytest\n\n\n@pytest.mark.{marker}\ndef test_it():\n    pass\n"
    for options in (("--connection-leaks=error",), ("-m", "connection_leaks or allow_connection_leaks")):
        run = run_suite(written(tmp_path, text), *options)
        assert (run.exit_code, run.counts) == (1, {"passed": 1, "error": 1}), run.output
        assert error in run.output


LISTING = """
    import sys

    HEAVY = ["asyncpg", "psycopg", "sqlalchemy", "prometheus_client", "structlog", "pydantic", "pgwatch_sessions.core"]

    def test_nothing_heavy_is_imported():
        assert [name for name in HEAVY if name in sys.modules] == []
        assert "pgwatch_sessions.pools.testing.plugin" in sys.modules

    def test_no_hook_runs(request):
        manager = request.config.pluginmanager
        hooks = [manager.hook.pytest_runtest_teardown, manager.hook.pytest_fixture_setup]
        used = [str(each.function) for hook in hooks for each in hook.get_hookimpls()]
        assert [each for each in used if "LeakCheck" in each] == []
"""


@pytest.mark.parametrize("arguments", [(), ("--connection-leaks=off",)], ids=["without option", "off"])
def test_it_is_inert_while_it_is_off(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """It comes with a package that people also install for its command."""
    run = run_suite(written(tmp_path, LISTING), *arguments)
    assert (run.exit_code, run.counts) == (0, {"passed": 2}), run.output


def test_the_error_of_a_fixture_is_kept(tmp_path: Path) -> None:
    """A teardown that fails may be why a connection was not returned. Both are shown."""
    run = run_suite(
        written(
            tmp_path,
            """
            import pytest
            import sqlalchemy

            KEPT = []

            @pytest.fixture
            def broken():
                KEPT.append(sqlalchemy.create_engine("sqlite://").connect())
                yield
                raise RuntimeError("the fixture's own")

            def test_it(broken):
                pass
            """,
        ),
        "--connection-leaks=error",
    )
    assert "RuntimeError: the fixture's own" in run.output
    assert run.left_out() == {
        "test_it": ["SQLAlchemy connection, taken at test_orders.py:8 in broken for the function fixture `broken`"]
    }


def test_a_mistake_of_the_check_does_not_break_the_tests(database: Database, tmp_path: Path) -> None:
    """Connections work as they do without it, but the check must not pass as if it had seen everything."""
    written(
        tmp_path,
        """
        import os

        import pytest
        from sqlalchemy import create_engine, text

        from pgwatch_sessions.pools.testing import sqlalchemy_pools

        def test_read(monkeypatch):
            def mistake():
                raise ZeroDivisionError("no line")

            monkeypatch.setattr(sqlalchemy_pools, "capture", mistake)
            engine = create_engine(os.environ["TEST_DSN"].replace("postgresql:", "postgresql+psycopg:"))
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1
        """,
    )
    run = run_suite(tmp_path, "--connection-leaks=error", dsn=database.dsn())
    assert run.counts == {"passed": 1, "error": 1}, run.output
    assert "the check for connection leaks has failed, and may have missed some:" in run.output
    assert "ZeroDivisionError: no line" in run.output
