"""TLS to PostgreSQL, by libpq's own names; on servers of the version matrix, since the packaged one has no TLS."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import trustme

from pgwatch_sessions.core.model import FailureReason
from pgwatch_sessions.demo.postgres import PostgresUnavailableError, account
from tests.support.daemons import daemon
from tests.support.polling import failed, poll, seen
from tests.support.programs import environment, finished
from tests.support.servers import OwnPostgres, OwnPostgresFactory, installed
from tests.support.waiting import until

PASSWORD = "hunter2-of-all"
HBA = (
    "hostssl all by_certificate all cert",
    "hostssl all by_password all scram-sha-256",
    "hostssl all by_clear_text all password",
    "hostssl all all all trust",
    "hostnossl all all all reject",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secure:
    """A server that speaks TLS only, with a certificate for `localhost`, and the files of its clients."""

    server: OwnPostgres
    folder: Path

    def file(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / name)

    def dsn(self, *, host: str = "localhost", user: str = "postgres", password: str = "", **files: str) -> str:
        """Return a URI that verifies everything, with these files of the folder as parameters."""
        named = {name: self.file(value) for name, value in files.items()}
        dsn = self.server.dsn(user=user, password=password, sslmode="verify-full", **named)
        return dsn.replace("127.0.0.1", host)


@pytest.fixture(params=installed(), ids="pg{}".format)
def secure(request: pytest.FixtureRequest, own_postgres: OwnPostgresFactory, tmp_path: Path) -> Iterator[Secure]:
    """Return such a server, once for each major; skip where its PostgreSQL has no TLS."""
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other-ca.pem")
    _write(authority.issue_cert("localhost"), tmp_path, "server")
    _write(authority.issue_cert("watcher.example", common_name="by_certificate"), tmp_path, "client")
    _write(other.issue_cert("watcher.example", common_name="by_certificate"), tmp_path, "strange")
    folder = _readable_by_the_server(tmp_path)
    settings = {"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.key", "ssl_ca_file": "ca.pem"}
    paths = {name: value if name == "ssl" else str(folder / value) for name, value in settings.items()}
    try:
        server = own_postgres(major=request.param, settings=paths, hba=HBA)
    except PostgresUnavailableError as error:
        shutil.rmtree(folder)
        if "SSL is not supported by this build" not in str(error):
            raise
        pytest.skip("this PostgreSQL has no TLS; make test-matrix runs the test on those that have")
    secure = Secure(server=server, folder=folder)
    with psycopg.connect(secure.dsn(sslrootcert="ca.pem"), autocommit=True) as superuser:
        superuser.execute("CREATE ROLE by_certificate LOGIN IN ROLE pg_monitor")
        superuser.execute(f"CREATE ROLE by_password LOGIN IN ROLE pg_monitor PASSWORD '{PASSWORD}'")
        superuser.execute(f"CREATE ROLE by_clear_text LOGIN IN ROLE pg_monitor PASSWORD '{PASSWORD}'")
    yield secure
    shutil.rmtree(folder)


def _write(certificate: trustme.LeafCert, folder: Path, name: str) -> None:
    certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    certificate.private_key_pem.write_to_path(folder / f"{name}.key")


def _readable_by_the_server(files: Path) -> Path:
    """Move the files to where root's servers, which run as nobody, can read them; keys must be their own."""
    folder = Path(os.environ["TMPDIR"]) / files.name
    shutil.copytree(files, folder)
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o600 if file.suffix == ".key" else 0o644)
    if user := account():
        shutil.chown(folder / "server.key", user)
    return folder


def test_the_right_authority_is_trusted_and_a_client_certificate_logs_in(secure: Secure) -> None:
    """verify-full with sslrootcert, and with sslcert and sslkey where pg_hba.conf says `cert`."""
    seen(poll(secure.dsn(sslrootcert="ca.pem")))
    by_certificate = secure.dsn(user="by_certificate", sslrootcert="ca.pem", sslcert="client.pem", sslkey="client.key")
    seen(poll(by_certificate))
    seen(poll(secure.dsn(user="by_password", password=PASSWORD, sslrootcert="ca.pem")))


def test_over_tls_a_password_may_be_asked_for_in_clear_text(secure: Secure) -> None:
    """Unless require_auth forbids it: the messages within TLS are read, too."""
    seen(poll(secure.dsn(user="by_clear_text", password=PASSWORD, sslrootcert="ca.pem")))
    dsn = secure.dsn(user="by_clear_text", password=PASSWORD, sslrootcert="ca.pem")
    failure = failed(poll(f"{dsn}&require_auth=scram-sha-256"))
    assert failure.reason is FailureReason.AUTHENTICATION
    assert "asks for password, and require_auth allows only scram-sha-256" in failure.detail


def test_libpqs_variables_say_the_same(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGSSLMODE, PGSSLROOTCERT, PGSSLCERT and PGSSLKEY are used for what the URI leaves out."""
    plain = secure.server.dsn(user="by_certificate").replace("127.0.0.1", "localhost")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", secure.file("ca.pem"))
    monkeypatch.setenv("PGSSLCERT", secure.file("client.pem"))
    monkeypatch.setenv("PGSSLKEY", secure.file("client.key"))
    seen(poll(plain))


REFUSALS: dict[str, tuple[Callable[[Secure], str], FailureReason, str]] = {
    "authority": (
        lambda secure: secure.dsn(sslrootcert="other-ca.pem"),
        FailureReason.NETWORK,
        "; name the file of its authority's certificate as sslrootcert, or in PGSSLROOTCERT",
    ),
    "host": (
        lambda secure: secure.dsn(host="127.0.0.1", sslrootcert="ca.pem"),
        FailureReason.NETWORK,
        "IP address mismatch, certificate is not valid for '127.0.0.1'; connect by a name that the certificate has",
    ),
    "no authority": (lambda secure: secure.dsn(), FailureReason.OTHER, "root.crt"),
    "gone since the start": (
        lambda secure: secure.dsn(sslrootcert="gone.pem"),
        FailureReason.NETWORK,
        "there is no file where sslrootcert, sslcert or sslkey",
    ),
    "no certificate": (
        lambda secure: secure.dsn(sslrootcert="client.key"),
        FailureReason.NETWORK,
        "the file that sslrootcert names holds no certificate in PEM",
    ),
    "other key": (
        lambda secure: secure.dsn(sslrootcert="ca.pem", sslcert="client.pem", sslkey="strange.key"),
        FailureReason.NETWORK,
        "the key (sslkey) does not fit the certificate (sslcert)",
    ),
    "no client certificate": (
        lambda secure: secure.dsn(user="by_certificate", sslrootcert="ca.pem"),
        FailureReason.AUTHENTICATION,
        "requires a valid client certificate",
    ),
    "strange client certificate": (
        lambda secure: secure.dsn(
            user="by_certificate", sslrootcert="ca.pem", sslcert="strange.pem", sslkey="strange.key"
        ),
        FailureReason.NETWORK,
        "",
    ),
    "password": (
        lambda secure: secure.dsn(user="by_password", password=PASSWORD + "?", sslrootcert="ca.pem"),
        FailureReason.AUTHENTICATION,
        "password authentication failed",
    ),
}


def test_what_goes_wrong_is_said_with_what_to_do(secure: Secure) -> None:
    """Each is a failure with a reason and a line for people, without the password."""
    for name, (dsn_of, reason, said) in REFUSALS.items():
        failure = failed(poll(dsn_of(secure)))
        assert (failure.reason, said in failure.detail) == (reason, True), (name, failure)
        assert PASSWORD not in repr(failure)


def test_the_daemon_polls_through_tls(secure: Secure) -> None:
    """From the settings to the server: up, over an encrypted session that the server confirms."""
    with daemon(dsn=secure.dsn(user="by_password", password=PASSWORD, sslrootcert="ca.pem")) as watching:
        watching.scrape_when_up()
        with psycopg.connect(secure.dsn(sslrootcert="ca.pem")) as observer:
            rows = observer.execute(
                "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'by_password'"
            ).fetchall()
        assert rows == [(True,)]
        assert PASSWORD not in watching.log.read_text()


def test_a_certificate_that_is_refused_is_told_in_the_log_and_by_check(secure: Secure) -> None:
    """server_down has the reason and what to do; `check` says the same and exits with 3. The password is in neither."""
    dsn = secure.dsn(user="by_password", password=PASSWORD, sslrootcert="other-ca.pem")
    with daemon(dsn=dsn) as watching:
        (down,) = until(lambda: watching.events("server_down"))
        assert down["reason"] == "network"
        assert "certificate is refused" in str(down)
        assert watching.scrape_when(lambda scrape: scrape.value("up") == 0).value("up") == 0
        assert PASSWORD not in watching.log.read_text()
    checked = finished("check", env=environment(DSN=dsn))
    assert checked.returncode == 3
    assert "name the file of its authority's certificate as sslrootcert" in " ".join(checked.stdout.split())
    assert PASSWORD not in checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey"])
def test_a_file_that_the_dsn_names_and_is_not_there_is_found_at_the_start(name: str) -> None:
    """Exit 2 with the parameter and the path; the password is not shown."""
    dsn = f"postgresql://u:{PASSWORD}@db/x?sslmode=verify-full&{name}=/not/there.pem"
    ended = finished("run", env=environment(DSN=dsn))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "pgwatch-sessions: error: environment variable PGWATCH_SESSIONS_DSN: "
        f"{name}: cannot use /not/there.pem: no such file or directory\n"
    )
