"""What a server may ask for before it lets us in: the password in clear text only where nobody can listen."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgwatch_sessions.core.model import FailureReason
from pgwatch_sessions.postgres.login import LoginCheck, LoginRefusedError, LoginRules
from tests.support.certificates import write_certificate
from tests.support.daemons import daemon
from tests.support.polling import failed, poll, seen
from tests.support.ports import sockets_to
from tests.support.programs import environment, finished
from tests.support.servers import OwnPostgres, OwnPostgresFactory
from tests.support.situations import role
from tests.support.tls_proxy import tls_proxy_to
from tests.support.waiting import until

PASSWORD = "hunter2-in-clear-text"
HBA = (
    "local all asked_locally password",
    "host all asked_for_clear_text all password",
    "host all asked_for_scram all scram-sha-256",
)
REFUSED = (
    "connecting: the server asks for the password in clear text, without TLS, so it was not sent: use "
    "sslmode=verify-full, or scram-sha-256 in the server's pg_hba.conf, or set allow_cleartext_password"
)


def request(number: int, rest: bytes = b"") -> bytes:
    """Return a message of the server about the login."""
    body = number.to_bytes(4, "big") + rest
    return b"R" + (len(body) + 4).to_bytes(4, "big") + body


LET_IN, CLEAR_TEXT, MD5, SCRAM = request(0), request(3), request(5, b"salt"), request(10, b"SCRAM-SHA-256\0\0")
SCRAM_GOES_ON, SCRAM_PROVEN = request(11, b"r=x"), request(12, b"v=x")
NOTICE = b"N" + (9).to_bytes(4, "big") + b"R\0\0\0\3"  # its body looks like the beginning of a request


@pytest.fixture
def server(own_postgres: OwnPostgresFactory) -> Iterator[OwnPostgres]:
    """Return a server whose roles are each asked for the password in another way."""
    server = own_postgres(hba=HBA)
    with contextlib.ExitStack() as stack:
        for name in ("asked_locally", "asked_for_clear_text", "asked_for_scram"):
            stack.enter_context(role(server.dsn(), name, password=PASSWORD, member_of=["pg_monitor"]))
        yield server


@contextlib.contextmanager
def eavesdropper(*answers: bytes) -> Iterator[tuple[int, bytearray]]:
    """Yield a port that answers what each client sends with these, and what its clients have sent."""
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            with contextlib.suppress(OSError):  # the listener is shut down
                while True:
                    client, _ = listener.accept()
                    with client:
                        for answer in answers:
                            heard.extend(client.recv(4096))
                            client.sendall(answer)
                        while data := client.recv(4096):
                            heard.extend(data)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield int(listener.getsockname()[1]), heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("sslmode", ["disable", "allow"])
@pytest.mark.parametrize("answer", [CLEAR_TEXT, NOTICE + CLEAR_TEXT, MD5 + CLEAR_TEXT, CLEAR_TEXT + LET_IN])
def test_the_password_is_not_sent_in_clear_text(answer: bytes, sslmode: str) -> None:
    """Whatever comes before. The failure says what to do, and the socket is closed."""
    with eavesdropper(answer) as (port, heard):
        failure = failed(poll(f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/db?sslmode={sslmode}"))
        assert (failure.reason, failure.detail) == (FailureReason.AUTHENTICATION, REFUSED)
        until(lambda: sockets_to(port) == [])
        assert b"user\0u\0" in heard
        assert PASSWORD.encode() not in heard


def test_it_is_not_sent_after_tls_was_declined() -> None:
    """sslmode=prefer, the default, goes on without TLS if the server declines it."""
    with eavesdropper(b"N", CLEAR_TEXT) as (port, heard):
        assert failed(poll(f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/db")).detail == REFUSED
        assert b"user\0u\0" in heard
        assert PASSWORD.encode() not in heard


def test_a_real_server_is_refused_unless_the_setting_says_otherwise(server: OwnPostgres) -> None:
    """By the daemon and by `config --test`, with the password in no output."""
    dsn = server.dsn(user="asked_for_clear_text", password=PASSWORD)
    assert failed(poll(dsn)).detail == REFUSED
    tried = finished("config", "--test", env=environment(DSN=dsn))
    assert tried.returncode == 3
    assert "set allow_cleartext_password" in " ".join(tried.stdout.split())
    assert PASSWORD not in tried.stdout + tried.stderr
    with daemon("--allow-cleartext-password", "yes", dsn=dsn) as watching:
        watching.scrape_when_up()
        assert PASSWORD not in watching.log.read_text()


def test_over_a_unix_socket_it_is_sent(server: OwnPostgres) -> None:
    """Nobody can listen there."""
    folder = server.data.parent
    seen(poll(f"postgresql://asked_locally:{PASSWORD}@/postgres?host={folder}&port={server.port}"))


def test_over_tls_it_is_sent_unless_require_auth_forbids_it(server: OwnPostgres, tmp_path: Path) -> None:
    """Nobody can listen there, either. What the server asks for within TLS is read, too."""
    write_certificate(tmp_path, "server", "localhost")
    with tls_proxy_to(server.port, tmp_path / "server.pem") as port:
        dsn = f"postgresql://asked_for_clear_text:{PASSWORD}@localhost:{port}/postgres?sslrootcert={tmp_path}/ca.pem"
        seen(poll(f"{dsn}&sslmode=verify-full"))
        failure = failed(poll(f"{dsn}&sslmode=verify-full&require_auth=scram-sha-256"))
        assert failure.reason is FailureReason.AUTHENTICATION
        assert "the server asks for password, and require_auth allows only scram-sha-256" in failure.detail


@pytest.mark.parametrize(
    ("require_auth", "user", "said"),
    [
        ("scram-sha-256", "asked_for_scram", ""),
        ("md5,scram-sha-256", "asked_for_scram", ""),
        ("!password,!none", "asked_for_scram", ""),
        ("none", "postgres", ""),
        ("none", "asked_for_scram", "the server asks for scram-sha-256, and require_auth allows only none"),
        ("scram-sha-256", "postgres", "the server lets us in without a login, and require_auth allows only scram-sha-"),
        ("!none", "postgres", "the server lets us in without a login"),
        ("password", "asked_for_clear_text", "without TLS, so it was not sent"),
    ],
)
def test_require_auth_says_what_a_server_may_ask_for(
    server: OwnPostgres, require_auth: str, user: str, said: str
) -> None:
    """As with libpq; a way that is allowed is used."""
    outcome = poll(server.dsn(user=user, password=PASSWORD, require_auth=require_auth))
    if not said:
        seen(outcome)
        return
    assert failed(outcome).reason is FailureReason.AUTHENTICATION
    assert said in failed(outcome).detail


@pytest.mark.parametrize("answer", [SCRAM + LET_IN, SCRAM + SCRAM_GOES_ON + LET_IN])
def test_a_server_that_does_not_prove_that_it_knows_the_password_is_refused(answer: bytes) -> None:
    """With require_auth=scram-sha-256. Whoever poses as the server can let us in, and cannot prove that."""
    check = LoginCheck(LoginRules(methods={"scram-sha-256"}), private=True)
    with pytest.raises(LoginRefusedError, match="has not proven"):
        check.read(answer)
    proven = LoginCheck(LoginRules(methods={"scram-sha-256"}), private=True)
    proven.read(SCRAM + SCRAM_GOES_ON + SCRAM_PROVEN + LET_IN)
    assert proven.over


@pytest.mark.parametrize("size", [1, 2, 7])
def test_messages_may_come_in_pieces(size: int) -> None:
    """A request is read when it is complete, and before the driver sees its end."""
    answer = NOTICE + MD5 + CLEAR_TEXT
    check = LoginCheck(LoginRules(), private=False)
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    for piece in pieces[:-2]:
        check.read(piece)
    with pytest.raises(LoginRefusedError):
        list(map(check.read, pieces[-2:]))
