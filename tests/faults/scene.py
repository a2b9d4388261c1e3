"""What a fault happens to: a server with a leak in it, a daemon that watches it, and the way between both."""

import contextlib
import secrets
import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import trustme

from tests.support.inside import Held, held_by, observable
from tests.support.programs import environment
from tests.support.proxy import Proxy
from tests.support.restartable_daemon import RestartableDaemon
from tests.support.servers import OwnPostgres, backends_of

#: Seconds between polls.
INTERVAL = 1.0
#: Only the daemon logs in as this role, so its backends are ours.
ROLE = "watcher"
PASSWORD = "first-of-all"
DATABASE = "shop"
#: The application that leaks, and how many sessions.
APPLICATION = "orders-api"
LEAKED = 3
#: A name that only the daemon can resolve.
HOST = "database.test"

_SET_UP = (
    f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor",
    "CREATE ROLE app LOGIN",
    f"CREATE DATABASE {DATABASE}",
)
#: Lines of pg_hba.conf.
HBA = (f"host all {ROLE} 127.0.0.0/8 scram-sha-256", "host all all 127.0.0.0/8 trust")
_LEAK = "SELECT 1 AS order_id /*route='/orders'*/"


class Identity:
    """The certificate that the proxy shows to those who ask for TLS."""

    def __init__(self, folder: Path) -> None:
        """Issue one, and write its authority's to a file."""
        self._authority = trustme.CA()
        self.authority_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.authority_file)
        self.renew()

    def renew(self, *, valid_until: datetime | None = None) -> None:
        """Show another one from now on."""
        self._certificate = self._authority.issue_cert(HOST, not_after=valid_until)

    def tls(self) -> ssl.SSLContext:
        """Return what the next client gets."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._certificate.configure_cert(context)
        return context


class Scene:
    """The server, the leak, the daemon, and what is between them."""

    def __init__(
        self, server: OwnPostgres, folder: Path, *, timeout: float, proxy: Proxy | None, identity: Identity | None
    ) -> None:
        """Prepare the server; nothing leaks and no daemon runs yet. `timeout` is a poll's deadline in seconds."""
        self.server = server
        self._proxy = proxy
        self._identity = identity
        #: The pids of the leaked sessions.
        self.leaked: list[int] = []
        self._password = folder / "password"
        self._hosts = folder / "hosts"
        self._inside = folder / "inside"
        self.record_dir = folder / "records"
        self.set_password(PASSWORD)
        self.resolve_to("127.0.0.1")
        with psycopg.connect(server.dsn(), autocommit=True) as superuser:
            for statement in _SET_UP:
                superuser.execute(statement.encode())
        port = proxy.port if proxy else server.port
        tls = f"sslmode=verify-full&sslrootcert={identity.authority_file}" if identity else "sslmode=disable"
        self.daemon = RestartableDaemon(
            folder / "log",
            *("--name", "shop", "--hold-limit", "1s", "--password-file", str(self._password)),
            *("--state-dir", str(folder / "state"), "--record-dir", str(self.record_dir)),
            env={
                **environment(
                    DSN=f"postgresql://{ROLE}@{HOST}:{port}/{DATABASE}?{tls}",
                    INTERVAL=f"{INTERVAL}s",
                    TIMEOUT=f"{timeout}s",
                ),
                **observable(self._inside, hosts=self._hosts),
            },
        )

    @property
    def proxy(self) -> Proxy:
        """What is between daemon and server, of a scene that has it."""
        assert self._proxy
        return self._proxy

    @property
    def identity(self) -> Identity:
        """The proxy's certificate, in a scene with TLS."""
        assert self._identity
        return self._identity

    def execute(self, *statements: str) -> None:
        """Run statements as a superuser at the server itself."""
        with psycopg.connect(self.server.dsn(database=DATABASE), autocommit=True) as superuser:
            for statement in statements:
                superuser.execute(statement.encode())

    @contextlib.contextmanager
    def leak(self) -> Iterator[None]:
        """Keep transactions open, until the block ends or the server ends them."""
        dsn = self.server.dsn(database=DATABASE, user="app", application_name=APPLICATION)
        with contextlib.ExitStack() as stack:
            for _ in range(LEAKED):
                connection = psycopg.connect(dsn)
                stack.callback(connection.close)
                connection.execute(_LEAK)
                self.leaked.append(connection.info.backend_pid)
            yield

    @contextlib.contextmanager
    def strangers(self, count: int) -> Iterator[None]:
        """Keep sessions of another application open, each with a statement of 1 kB that is like no other."""
        dsn = self.server.dsn(database=DATABASE, user="app", application_name="another")
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                connection = psycopg.connect(dsn, autocommit=True)
                stack.callback(connection.close)
                columns = (f"1 AS c{secrets.token_hex(20)}" for _ in range(20))
                connection.execute(f"SELECT {', '.join(columns)}".encode())
            yield

    def ours(self) -> set[int]:
        """Return the pids of our backends, those that wait in start-up included.

        The server is not asked, because it may be stopped, full or locked: the titles of its processes say it.
        """
        return backends_of(self.server.server, ROLE)

    def end_ours(self) -> None:
        """Let the server end our sessions."""
        self.execute(END_OURS)

    def resolve_to(self, address: str) -> None:
        """Let the server's name mean this address."""
        _replace(self._hosts, f"{address} {HOST}\n")

    def set_password(self, password: str) -> None:
        """Give the daemon this password, from its next connect on."""
        _replace(self._password, password)

    def held(self) -> Held:
        """Return what the daemon holds now."""
        return held_by(self.daemon.pid, self._inside)


END_OURS = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"


def _replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)
