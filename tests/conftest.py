"""Fixtures: running servers, databases on them, servers of a test's own, and nothing left behind."""

import contextlib
import functools
import inspect
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from pgwatch_sessions.demo.postgres import Cluster, Postgres, cluster, runnable, serving
from pgwatch_sessions.demo.supervisor import descendants
from tests.support.leftovers import processes_of
from tests.support.servers import (
    Database,
    OwnPostgres,
    OwnPostgresFactory,
    copied,
    fresh_database,
    installed,
    own_server,
)
from tests.support.waiting import until

# How many examples a property gets: in continuous integration hypothesis' own number, 100, elsewhere a quarter of that.
# `make fuzz` asks for `many`, other ones each time.
# An example has no deadline, because other workers may have the processor.
settings.register_profile("full", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("full"), max_examples=25)
settings.register_profile("many", settings.get_profile("full"), max_examples=3_000, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("full" if "CI" in os.environ else "quick"))


def pytest_configure() -> None:
    """Let programs that tests start take Ctrl-C: whatever a script runs with `&` inherits that it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many workers to start: one per core for `-n logical`, and for `-n auto` two, since most tests wait."""
    cores = os.cpu_count() or 1
    return cores if config.option.numprocesses == "logical" else 2 * cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what uses a PostgreSQL server, and the tests of every module that can start programs."""
    for item in items:
        if isinstance(item, pytest.Function) and (
            item.get_closest_marker("e2e") is not None
            or item.get_closest_marker("image") is not None
            or item.get_closest_marker("installed") is not None
            or "template_of" in item.fixturenames
            or _can_start_programs(item.module)
        ):
            item.add_marker("slow")


@functools.cache
def _can_start_programs(module: ModuleType) -> bool:
    """Tell whether a test module defines or imports a function whose module starts programs."""
    modules = [getattr(inspect.unwrap(value), "__globals__", {}) for value in vars(module).values() if callable(value)]
    return any("subprocess" in names or "child_process" in names for names in modules)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, as the daemon does."""
    return "asyncio"


@pytest.fixture(autouse=True)
def only_slow_tests_start_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `make test-fast` fast: fail a test that starts a program and is not marked."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(subprocess.Popen, "__init__", _refuse)


def _refuse(*_: object, **__: object) -> None:
    pytest.fail("a test that starts a program is slow: mark it with @pytest.mark.slow")


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
def template_of(nothing_left_behind: None) -> Iterator[Callable[[int], Cluster]]:  # noqa: ARG001  # for its order
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
            *,
            major: int = max(installed()),
            settings: Mapping[str, str] | None = None,
            hba: Sequence[str] = (),
            standby_of: OwnPostgres | None = None,
        ) -> OwnPostgres:
            own = own_server(template_of(major), settings=settings or {}, hba=hba, standby_of=standby_of)
            return stack.enter_context(own)

        yield start


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run in which tests were chosen and none ran: it has shown nothing."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # in a worker: the process that started the workers gets the results of all
        return
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
