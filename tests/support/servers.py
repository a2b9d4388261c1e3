"""Real PostgreSQL servers for tests: which majors there are, and servers and databases of a test's own."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import psycopg

from pgwatch_sessions.demo.child_process import temporary_folder
from pgwatch_sessions.demo.postgres import (
    INSTALL_FOLDERS,
    Cluster,
    Postgres,
    give,
    packaged,
    put_first,
    serving,
)
from pgwatch_sessions.demo.supervisor import descendants, send_signal


def installed() -> dict[int, Path]:
    """Return the folder of binaries of each major: those of the version matrix if it is asked for."""
    modules = os.environ.get("PGWATCH_TEST_MATRIX")
    if modules is None:
        return {major: packaged(major) for major in INSTALL_FOLDERS}
    found = {int(path.name[2:]): path / "native" / "bin" for path in Path(modules).glob("pg[0-9]*")}
    assert found, f"no pg14, pg15 … in {modules}: run npm ci in tests/matrix"
    return dict(sorted(found.items()))


@contextlib.contextmanager
def copied(template: Cluster) -> Iterator[Cluster]:
    """Copy a cluster that no server runs on: ten times as fast as initdb."""
    with temporary_folder() as folder:
        copy = replace(template, folder=folder)
        subprocess.run(["cp", "-a", template.data, copy.data], check=True)
        if copy.user:
            give(folder.path, copy.user)
        yield copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An empty database of a test's own."""

    server: Postgres
    name: str

    def dsn(self, *, user: str = "postgres", **parameters: str) -> str:
        """Return a connection URI."""
        return self.server.dsn(database=self.name, user=user, **parameters)


@contextlib.contextmanager
def fresh_database(server: Postgres, name: str) -> Iterator[Database]:
    """Create a database, and drop it with whatever is still connected."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield Database(server=server, name=name)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def client_backends(server: Postgres) -> set[int]:
    """Return the pids of the processes that serve clients, those in start-up and authentication included.

    pg_stat_activity does not show a backend in start-up before PostgreSQL 18; its process title always does.
    """
    return {pid for pid, title in _titles(server) if "127.0.0.1(" in title}


def backends_of(server: Postgres, role: str) -> set[int]:
    """Return those that serve this role."""
    return {pid for pid, title in _titles(server) if title.startswith(f"postgres: {role} ")}


def _titles(server: Postgres) -> Iterator[tuple[int, str]]:
    for pid in descendants(server.pid):
        with contextlib.suppress(OSError):  # it ended meanwhile
            yield pid, Path(f"/proc/{pid}/cmdline").read_text(errors="replace")


class OwnPostgres:
    """A server that a test may stop, restart, crash and freeze; its port stays the same."""

    def __init__(self, cluster: Cluster, settings: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._settings = settings
        self._run = contextlib.ExitStack()
        self.server = self._run.enter_context(serving(cluster, settings=settings))
        self.dsn = self.server.dsn

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        return self.server.port

    @property
    def data(self) -> Path:
        """The data folder."""
        return self._cluster.data

    def stop(self) -> None:
        """Shut down fast: sessions get 57P01, new connections are refused by the system."""
        self._run.close()

    def start(self, **settings: str) -> None:
        """Start again, with these settings besides the first ones."""
        server = serving(self._cluster, settings={**self._settings, **settings}, port=self.port)
        self.server = self._run.enter_context(server)

    def restart(self, **settings: str) -> None:
        """Stop and start."""
        self.stop()
        self.start(**settings)

    def crash(self) -> None:
        """End without a word to anybody: an immediate shutdown."""
        os.kill(self.server.pid, signal.SIGQUIT)
        self.server.process.wait(timeout=10)
        self._run.close()

    def stop_smart(self) -> None:
        """Begin to shut down: no new connections, and the end when the last session has ended."""
        os.kill(self.server.pid, signal.SIGTERM)

    def freeze(self) -> None:
        """Stop all its processes: connections stay open, new ones wait in the backlog, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo freeze."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # The postmaster first: stopped, it starts no further child.
        send_signal(self.server.pid, number)
        for pid in descendants(self.server.pid):
            send_signal(pid, number)


class OwnPostgresFactory(Protocol):
    """Starts a server of the test's own: `own_postgres(settings={"max_connections": "20"})`."""

    def __call__(
        self,
        *,
        major: int = ...,
        settings: Mapping[str, str] = ...,
        hba: Sequence[str] = ...,
        standby_of: OwnPostgres | None = ...,
    ) -> OwnPostgres:
        """Return the running server; the test's end stops it."""


@contextlib.contextmanager
def own_server(
    template: Cluster, *, settings: Mapping[str, str], hba: Sequence[str], standby_of: OwnPostgres | None = None
) -> Iterator[OwnPostgres]:
    """Run a server on a copy of the cluster, with further settings and lines at the top of pg_hba.conf.

    A standby starts from the same copy as its primary, and streams what the primary has written since.
    """
    with copied(template) as cluster:
        put_first(hba, cluster)
        if standby_of is not None:
            (cluster.data / "standby.signal").touch()
            primary = f"host=127.0.0.1 port={standby_of.port} user=postgres"
            settings = {**settings, "primary_conninfo": primary}
        own = OwnPostgres(cluster, settings)
        try:
            yield own
        finally:
            own.stop()
