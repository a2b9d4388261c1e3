"""`pgwatch-sessions check-health` against real daemons, and against programs that are not the daemon."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.certificates import hashed, write_plain_config, write_web_config
from tests.support.daemons import Daemon, daemon
from tests.support.programs import environment, finished

SECRET = "hunter2"
#: Nothing listens there. The daemon runs all the same.
NO_SERVER = "postgresql://u@127.0.0.1:1/x"


def port_of(address: str) -> int:
    """Return the port of an address from the daemon's log."""
    port = urlsplit(address).port
    assert port
    return port


def health(*arguments: str, **settings: str) -> tuple[int, str]:
    """Run the command. Return its exit code and the one line that it prints."""
    ended = finished("check-health", *arguments, env=environment(**settings))
    said = ended.stdout + ended.stderr
    assert said.count("\n") == 1, said
    assert SECRET not in said
    return ended.returncode, said.rstrip("\n")


def test_a_daemon_is_healthy_although_its_server_is_down() -> None:
    """It prints the daemon's answer and exits with 0, however the address is given."""
    with daemon(dsn=NO_SERVER) as watching:
        address = f"127.0.0.1:{port_of(watching.address)}"
        assert health(LISTEN=address) == (0, "healthy: ok")
        assert health("--listen", address) == (0, "healthy: ok")
        assert health(LISTEN=f"0.0.0.0:{port_of(watching.address)}") == (0, "healthy: ok")
        assert health(LISTEN=f":{port_of(watching.address)}") == (0, "healthy: ok")


def test_the_settings_are_read_from_where_run_reads_them(tmp_path: Path) -> None:
    """File, secret file and directory have the same precedence as for `run`. Errors in other settings are ignored."""
    with daemon(dsn=NO_SERVER) as watching:
        address = f"127.0.0.1:{port_of(watching.address)}"
        config = tmp_path / "config.yaml"
        config.write_text(f"listen: {address}\ninterval: never\ndsn: postgresql://u:{SECRET}@@db\nintervall: 1\n")
        assert health("--config", str(config)) == (0, "healthy: ok")
        assert health(CONFIG=str(config), DSN_FILE="/not/there", TIMEOUT="soon", UNKNOWN=SECRET) == (0, "healthy: ok")
        config.write_text("listen: 127.0.0.1:1\n")
        secrets = tmp_path / "secrets"
        secrets.mkdir()
        (secrets / "pgwatch_sessions_listen").write_text(f"{address}\n")
        (secrets / "pgwatch_sessions_dsn").write_bytes(b"\xff")
        assert health("--config", str(config), SECRETS_DIR=str(secrets)) == (0, "healthy: ok")
        code, said = health("--config", str(config))
        assert (code, said) == (1, "not healthy: no answer at 127.0.0.1:1: connection refused")


def test_metrics_listen_is_asked_where_it_is_set() -> None:
    """The page may listen where the health check cannot reach it."""
    with daemon("--metrics-listen", "127.0.0.1:0", dsn=NO_SERVER) as watching:
        (started,) = watching.events("started")
        metrics = f"127.0.0.1:{port_of(started['metrics_address'])}"
        assert health(LISTEN="127.0.0.1:1", METRICS_LISTEN=metrics) == (0, "healthy: ok")


def test_it_needs_neither_certificate_nor_password(tmp_path: Path) -> None:
    """It does not verify the certificate of its own machine, and /healthz needs no password; with TLS and without."""
    users = {"prometheus": hashed(SECRET)}
    for web_config in (write_web_config(tmp_path, users=users), write_plain_config(tmp_path, users=users)):
        with daemon("--web-config", str(web_config), dsn=NO_SERVER) as watching:
            address = f"127.0.0.1:{port_of(watching.address)}"
            assert health(LISTEN=address, WEB_CONFIG=str(web_config)) == (0, "healthy: ok")


def test_a_daemon_that_requires_a_client_certificate_is_healthy(tmp_path: Path) -> None:
    """The TLS alert with which it refuses shows that its loop runs. Without a certificate nothing more can be asked."""
    required = ("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem")
    web_config = write_web_config(tmp_path, *required)
    with daemon("--web-config", str(web_config), dsn=NO_SERVER) as watching:
        address = f"127.0.0.1:{port_of(watching.address)}"
        said = "healthy: the daemon answers, but requires a client certificate"
        assert health(LISTEN=address, WEB_CONFIG=str(web_config)) == (0, said)
        assert_unhealthy_while_stopped(watching, LISTEN=address, WEB_CONFIG=str(web_config))


def test_a_daemon_that_hangs_is_not_healthy() -> None:
    """The kernel still accepts connections for it. Without an answer within 3 s the command exits with 1."""
    with daemon(dsn=NO_SERVER) as watching:
        assert_unhealthy_while_stopped(watching, LISTEN=f"127.0.0.1:{port_of(watching.address)}")


def assert_unhealthy_while_stopped(watching: Daemon, **settings: str) -> None:
    """Stop the daemon's process, ask, and continue the process."""
    os.kill(watching.process.pid, signal.SIGSTOP)
    try:
        assert health(**settings) == (1, f"not healthy: no answer at {settings['LISTEN']} within 3 s")
    finally:
        os.kill(watching.process.pid, signal.SIGCONT)


def test_another_status_than_200_is_not_healthy() -> None:
    """The line has the status and the reason."""
    with listening(
        lambda connection: connection.sendall(b"HTTP/1.1 503 x\r\n\r\nno poll has ended for 60 s\n")
    ) as port:
        said = "not healthy: status 503: no poll has ended for 60 s"
        assert health(LISTEN=f"127.0.0.1:{port}") == (1, said)


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_an_invalid_host_name_is_not_healthy(host: str) -> None:
    """The command prints one line and no traceback."""
    code, said = health(LISTEN=f"{host}:9488")
    assert (code, said[: len(host) + 31]) == (1, f"not healthy: no answer at {host}:9488")


@contextmanager
def listening(behave: Callable[[socket.socket], object]) -> Iterator[int]:
    """Listen, but not as a daemon: `behave` gets each connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with closing(connection):
                    connection.settimeout(5)
                    try:
                        connection.recv(4096)
                        behave(connection)
                    except OSError:
                        pass

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def drip(connection: socket.socket) -> None:
    """Answer slowly and without an end, one byte at a time."""
    for _ in range(500):
        connection.sendall(b"x")
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (lambda connection: connection.sendall(b"SSH-2.0-x\r\n"), "no HTTP server at"),
        (lambda _: None, "no HTTP server at"),
        (drip, "no answer at"),
        (lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x\n" * 100_000), None),
    ],
    ids=["other protocol", "closed", "drip", "endless"],
)
@pytest.mark.parametrize("settings", [{}, {"WEB_CONFIG": "/not/read"}], ids=["plain", "maybe TLS"])
def test_another_program_is_not_healthy(
    behave: Callable[[socket.socket], object], said: str | None, settings: Mapping[str, str]
) -> None:
    """Whatever it answers, the command ends in time and prints one line."""
    with listening(behave) as port:
        code, line = health(LISTEN=f"127.0.0.1:{port}", **settings)
        assert code == (0 if said is None else 1)
        assert (said or "healthy: x") in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"LISTEN": "nonsense"}, "environment variable PGWATCH_SESSIONS_LISTEN: must be an address"),
        (
            {"LISTEN": "127.0.0.1:0"},
            "environment variable PGWATCH_SESSIONS_LISTEN: port 0 lets the system choose a port",
        ),
        ({"LISTEN_FILE": "/not/there"}, "environment variable PGWATCH_SESSIONS_LISTEN_FILE: cannot use /not/there"),
        ({"CONFIG": "/not/there.yaml"}, "cannot use /not/there.yaml: no such file or directory"),
        ({"SECRETS_DIR": "/not/there"}, "cannot use /not/there: no such file or directory"),
    ],
)
def test_without_a_usable_address_it_exits_with_2(settings: Mapping[str, str], message: str) -> None:
    """The error has its place and what to do."""
    code, said = health(**settings)
    assert code == 2
    assert said.startswith("pgwatch-sessions: error: ")
    assert message in said


def test_wrong_usage_is_exit_2_and_help_says_what_it_does() -> None:
    """It is listed in the overview, and has the help and exit codes of the other commands."""
    assert finished("check-health", "--no-such").returncode == 2
    assert "\n    check-health" in finished("--help").stdout
    text = finished("check-health", "--help").stdout
    assert text.startswith("usage: pgwatch-sessions check-health [--help]")
    assert "exit codes:" in text


def test_it_loads_little() -> None:
    """A health check every few seconds must not cost as much as a start of the daemon."""
    program = (
        "import sys; from pgwatch_sessions.cli import main\n"
        "try: main(['check-health', '--listen', '127.0.0.1:1'])\n"
        "except SystemExit: print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    loaded = {module.partition(".")[0] for module in ended.stdout.split()}
    assert not loaded & {
        "asyncpg",
        "pydantic",
        "yaml",
        "starlette",
        "uvicorn",
        "prometheus_client",
        "structlog",
        "bcrypt",
    }
