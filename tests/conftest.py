"""Fixtures: running servers, databases on them, servers of a test's own, and nothing left behind."""

import contextlib
import functools
import itertools
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from pgwatch_sessions.demo.postgres import Cluster, Postgres, cluster, runnable, serving
from pgwatch_sessions.demo.supervisor import descendants
from tests.support.leftovers import processes_of
from tests.support.servers import Database, OwnPostgres, copied, fresh_database, installed, own_server
from tests.support.waiting import until


class OwnPostgresFactory(Protocol):
    """Starts a server of the test's own: `own_postgres(settings={"max_connections": "20"})`."""

    def __call__(self, *, major: int = ..., settings: Mapping[str, str] = ..., hba: Sequence[str] = ...) -> OwnPostgres:
        """Return the running server; the test's end stops it."""


def pytest_configure() -> None:
    """Let programs that tests start take Ctrl-C: whatever a script runs with `&` inherits that it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the run if a process or a temporary folder of ours outlives its tests."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is to outlive the run
    folder = Path(tempfile.mkdtemp(prefix="pgwt-"))
    folder.chmod(0o755)  # root's servers run as nobody
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield

    def left() -> list[object]:
        return [*descendants(os.getpid()), *processes_of(folder), *folder.iterdir()]

    try:
        with contextlib.suppress(AssertionError):
            until(lambda: not left(), within=5)
        assert left() == []
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template_of(nothing_left_behind: None) -> Iterator[Callable[[int], Cluster]]:  # noqa: ARG001
    """Return a function that gives an initialised cluster of a major, to be copied."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(
            lambda major: stack.enter_context(cluster(stack.enter_context(runnable(installed()[major]))))
        )


@pytest.fixture(scope="session")
def server_of(template_of: Callable[[int], Cluster]) -> Iterator[Callable[[int], Postgres]]:
    """Return a function that gives the shared running server of a major."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(
            lambda major: stack.enter_context(serving(stack.enter_context(copied(template_of(major)))))
        )


@pytest.fixture(scope="session")
def postgres(server_of: Callable[[int], Postgres]) -> Postgres:
    """Return a shared running server of the newest major."""
    return server_of(max(installed()))


@pytest.fixture(scope="session", params=installed(), ids="pg{}".format)
def any_postgres(request: pytest.FixtureRequest, server_of: Callable[[int], Postgres]) -> Postgres:
    """Return a shared running server: the test runs once for each major there is."""
    return server_of(request.param)


_names = map("test_{}".format, itertools.count())


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """Return an empty database of the test's own on `postgres`."""
    with fresh_database(postgres, next(_names)) as fresh:
        yield fresh


@pytest.fixture
def any_database(any_postgres: Postgres) -> Iterator[Database]:
    """Return an empty database of the test's own on `any_postgres`."""
    with fresh_database(any_postgres, next(_names)) as fresh:
        yield fresh


@pytest.fixture
def own_postgres(template_of: Callable[[int], Cluster]) -> Iterator[OwnPostgresFactory]:
    """Return a function that starts a server of the test's own."""
    with contextlib.ExitStack() as stack:

        def start(
            *, major: int = max(installed()), settings: Mapping[str, str] | None = None, hba: Sequence[str] = ()
        ) -> OwnPostgres:
            return stack.enter_context(own_server(template_of(major), settings=settings or {}, hba=hba))

        yield start


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run in which tests were chosen and none ran: it has shown nothing."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == pytest.ExitCode.OK and reporter.stats.get("skipped") and not reporter.stats.get("passed"):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line which tests did not run, and how to get them."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        told = "; ".join(f"{number} of them: {reason}" for reason, number in reasons.most_common())
        terminalreporter.write_line(f"{reasons.total()} tests did not run. {told}")
