"""The embedded PostgreSQL starts on any machine, under any user, and leaves nothing behind."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg
import pytest

import pgwatch_sessions
from pgwatch_sessions.demo import postgres as embedded
from pgwatch_sessions.demo.child_process import temporary_folder
from pgwatch_sessions.demo.postgres import (
    INSTALL_FOLDERS,
    PostgresUnavailableError,
    cluster,
    give,
    may_run,
    packaged,
    runnable,
    running_postgres,
    serving,
)
from pgwatch_sessions.demo.supervisor import descendants
from tests.support.leftovers import alive
from tests.support.servers import OwnPostgresFactory
from tests.support.waiting import until

REPOSITORY = Path(pgwatch_sessions.__file__).parents[1]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="tests what root does")


def answer(dsn: str, query: str = "SELECT 1") -> str:
    """Return the single value of a query."""
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row
    return str(row[0])


@pytest.mark.parametrize("major", INSTALL_FOLDERS)
def test_runs_until_the_block_ends(major: int) -> None:
    """Each packaged version runs, answers over TCP and a Unix socket, and leaves no process and no file."""
    with running_postgres(major, settings={"max_connections": "20"}) as server:
        everybody = [server.pid, server.process.supervisor.pid, *descendants(server.pid)]
        assert answer(server.dsn(), "SHOW server_version").startswith(f"{major}.")
        assert answer(server.dsn(), "SHOW max_connections") == "20"
        assert answer(f"host={server.cluster.folder.path} port={server.port} user=postgres") == "1"
        assert "ready to accept connections" in server.cluster.log.read_text()
        assert server.port < 32768
    assert not any(map(alive, everybody))
    assert not server.cluster.folder.path.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))


def test_dsn_carries_any_name(own_postgres: OwnPostgresFactory) -> None:
    """Names and passwords may contain the special characters of a URI; given lines of pg_hba.conf apply first."""
    name, password = "a b@c:/ü?%", "p@ss:/?#%w"
    own = own_postgres(hba=[f'host all "{name}" all scram-sha-256'])
    with psycopg.connect(own.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'".encode())
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    dsn = own.dsn(database=name, user=name, password=password, application_name="x &=y")
    assert answer(dsn, "SELECT current_user || current_database()") == name + name
    assert answer(dsn, "SHOW application_name") == "x &=y"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        answer(own.dsn(user=name, password="wrong"))


def test_restart_keeps_port_and_data(own_postgres: OwnPostgresFactory) -> None:
    """A restarted server has the same port and data, after a shutdown and after a crash."""
    own = own_postgres()
    port = own.port
    with psycopg.connect(own.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
        own.stop()
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        answer(own.dsn())
    own.start(max_connections="30")
    assert answer(own.dsn(), "SHOW max_connections") == "30"
    own.crash()
    own.start()
    assert answer(own.dsn(), "SELECT value FROM kept") == "42"
    assert own.port == port


def test_frozen_server_can_be_stopped(own_postgres: OwnPostgresFactory) -> None:
    """A frozen server accepts connections without answering; it can thaw, and be stopped while it is frozen."""
    own = own_postgres()
    with closing(psycopg.connect(own.dsn(), autocommit=True)) as connection:
        own.freeze()
        connection.pgconn.send_query(b"SELECT 42")
        with socket.create_connection(("127.0.0.1", own.port), timeout=0.2) as newcomer:
            newcomer.sendall(bytes.fromhex("0000000804d2162f"))
            with pytest.raises(TimeoutError):
                newcomer.recv(1)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        own.thaw()
        result = connection.pgconn.get_result()
        assert result
        assert result.get_value(0, 0) == b"42"
        own.freeze()
        everybody = descendants(own.server.pid)
        own.stop()
    assert own.server.process.poll() == 0
    assert not any(map(alive, everybody))


def test_crashed_server_is_seen(own_postgres: OwnPostgresFactory) -> None:
    """If the postmaster is killed, its exit code shows it, its children end, and it can be started again."""
    own = own_postgres()
    children = descendants(own.server.pid)
    os.kill(own.server.pid, signal.SIGKILL)
    assert own.server.process.wait(timeout=5) == 128 + signal.SIGKILL
    assert not any(map(alive, children))
    own.restart()  # which also takes over, and later removes, the System V segment that a killed postmaster leaves
    assert answer(own.dsn()) == "1"


@contextmanager
def taken_ports(count: int) -> Iterator[range]:
    """Listen on all but the last of `count` consecutive ports."""
    for first in range(15_000, 19_000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    holder = stack.enter_context(socket.socket())
                    holder.bind(("127.0.0.1", port))
                    if port == first + count - 1:
                        holder.close()
                    else:
                        holder.listen()
            except OSError:
                continue
            yield range(first, first + count)
            return


def test_taken_port_makes_it_try_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """If ports turn out to be in use, the server runs on another one."""
    with runnable(packaged(18)) as bin_folder, cluster(bin_folder) as new, taken_ports(10) as ports:
        monkeypatch.setattr(embedded, "PORTS", ports)
        with serving(new) as server:
            assert server.port == ports[-1]
            assert answer(server.dsn()) == "1"
        with pytest.raises(PostgresUnavailableError, match="Address already in use"), serving(new, port=ports[0]):
            pass


def test_unknown_setting_is_reported() -> None:
    """A server that cannot start reports the reason and leaves nothing behind."""
    with (
        pytest.raises(PostgresUnavailableError, match='unrecognized configuration parameter "max_conections"'),
        running_postgres(settings={"max_conections": "20"}),
    ):
        pass


def test_missing_binaries_are_reported() -> None:
    """Without the extra `demo` the message says how to install it; it names a version that is not packaged."""
    program = "from pgwatch_sessions.demo.postgres import packaged; packaged(18)"
    bare = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pip install 'pgwatch-sessions[demo]'" in bare.stderr
    with pytest.raises(PostgresUnavailableError, match=r"no PostgreSQL 17 is packaged, only \[16, 18\]"):
        packaged(17)


@as_root
def test_binaries_in_a_private_folder_are_copied(tmp_path: Path) -> None:
    """Root gets a server even if `nobody` cannot reach its environment; reachable binaries are not copied."""
    assert tmp_path.parents[1].stat().st_mode & stat.S_IXOTH == 0
    package = packaged(18).parents[1]
    for folder in (package, package.with_name(package.name + ".libs")):
        (tmp_path / folder.name).symlink_to(folder)
    with runnable(tmp_path / packaged(18).relative_to(package.parent)) as reachable:
        assert not reachable.is_relative_to(tmp_path)
        with cluster(reachable) as new, serving(new) as server:
            assert answer(server.dsn()) == "1"
        with runnable(reachable) as same:
            assert same == reachable
    assert not reachable.exists()


PARENT = """
import sys, time
from pathlib import Path
from pgwatch_sessions.demo.postgres import cluster, serving
with cluster(Path(sys.argv[1])) as new, serving(new) as server:
    print(server.pid, server.process.supervisor.pid, new.folder.path, server.dsn(), flush=True)
    time.sleep(600)
"""


def python_for(user: str | None) -> str:
    """Return a Python that the user can run: ours or the system's."""
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if user is None or (Path(candidate).exists() and may_run(user, Path(candidate))):
            return candidate
    pytest.skip(f"every Python lies in a folder that {user} cannot reach")


@pytest.mark.parametrize("user", [None, pytest.param("nobody", marks=as_root)])
def test_killed_parent_leaves_nothing(user: str | None) -> None:
    """After SIGKILL of the parent, run by root or by an ordinary user, no process and no folder remains."""
    with temporary_folder() as place, runnable(packaged(18)) as bin_folder:
        shutil.copytree(REPOSITORY / "pgwatch_sessions", place.path / "pgwatch_sessions")
        place.path.chmod(0o755)
        if user:
            give(place.path, user)
        with subprocess.Popen(
            [python_for(user), "-c", PARENT, bin_folder],
            env={"PYTHONPATH": str(place.path), "TMPDIR": str(place.path)},
            cwd=place.path,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=() if user else None,
            stdout=subprocess.PIPE,
            text=True,
        ) as parent:
            assert parent.stdout
            pid, supervisor, folder, dsn = parent.stdout.readline().split()
            everybody = [int(pid), int(supervisor), *descendants(int(pid))]
            assert len(everybody) > 5
            assert answer(dsn) == "1"
            parent.kill()
        until(lambda: not any(map(alive, everybody)))
        until(lambda: not Path(folder).exists())
