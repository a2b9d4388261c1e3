"""The daemon as a process with a web configuration and a second address."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest
import yaml

from pgwatch_sessions.demo.postgres import Postgres
from tests.support.certificates import hashed, trusting, write_certificate, write_plain_config, write_web_config
from tests.support.daemons import Daemon, daemon
from tests.support.programs import environment, finished
from tests.support.waiting import until

SECRET = "hunter2-of-all"
NO_SERVER = "postgresql://u@127.0.0.1:1/x"


def test_both_addresses_speak_tls_and_need_passwords(postgres: Postgres, tmp_path: Path) -> None:
    """The log names both addresses and no password. Only one has the page; the other has metrics and probes."""
    web_config = write_web_config(tmp_path, users={"prometheus": hashed(SECRET)})
    arguments = ("--web-config", str(web_config), "--metrics-listen", "127.0.0.1:0")
    with daemon(*arguments, dsn=postgres.dsn()) as watching, httpx.Client(verify=trusting()) as client:
        (started,) = watching.events("started")
        page, metrics = started["address"], started["metrics_address"]
        assert page != metrics
        assert page.startswith("https://127.0.0.1:")
        assert metrics.startswith("https://127.0.0.1:")
        login = ("prometheus", SECRET)
        until(lambda: "pgwatch_sessions_up{" in client.get(f"{metrics}/metrics", auth=login).text)
        for address in (page, metrics):
            refused = client.get(f"{address}/metrics")
            assert (refused.status_code, refused.headers["Cache-Control"]) == (401, "no-store")
            assert client.get(f"{address}/healthz").status_code == 200
            assert client.post(f"{address}/metrics", auth=login, content=b"x").status_code == 413
        assert client.get(f"{page}/").status_code == client.get(f"{metrics}/").status_code == 401
        assert client.get(f"{page}/", auth=login).status_code == 200
        missing = client.get(f"{metrics}/", auth=login)
        assert missing.status_code == 404
        assert missing.text == "Nothing here. Known addresses: /metrics, /healthz, /readyz\n"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(page)
        write_certificate(tmp_path, "server", "elsewhere.example")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{metrics}/healthz", verify=trusting())
        assert watching.events("web_config_reloaded")
        log = watching.log.read_text()
    assert SECRET not in log
    assert "$2b$" not in log


def answer(watching: Daemon, path: str, host: str, auth: tuple[str, str] | None = None) -> httpx.Response:
    """Ask under a name."""
    return httpx.get(f"{watching.address}{path}", headers={"Host": host}, auth=auth)


def test_only_names_of_this_machine_open_the_page() -> None:
    """A page of others that has made its name mean 127.0.0.1 is refused; metrics and probes are answered."""
    with daemon("--allowed-hosts", "*.internal, db", dsn=NO_SERVER) as watching:
        for path in ("/", "/api/v1/sessions", "/runbooks/"):
            refused = answer(watching, path, "evil.example")
            assert (refused.status_code, refused.headers["Cache-Control"]) == (421, "no-store")
            assert "allowed_hosts" in refused.text
            for host in ("localhost", "127.0.0.1:9488", "monitor.internal", "db:80"):
                assert answer(watching, path, host).status_code == 200
        for path in ("/metrics", "/healthz"):
            assert answer(watching, path, "evil.example").status_code == 200


def test_an_address_for_other_machines_has_any_name_unless_names_are_given() -> None:
    """Nobody knows in a container under which names it is reached."""
    with daemon("--listen", "0.0.0.0:0", dsn=NO_SERVER) as watching:
        assert answer(watching, "/", "anything.example").status_code == 200
    with daemon("--listen", "0.0.0.0:0", "--allowed-hosts", "monitor.example", dsn=NO_SERVER) as watching:
        assert answer(watching, "/", "anything.example").status_code == 421
        assert answer(watching, "/", "monitor.example").status_code == 200
        assert answer(watching, "/", "localhost").status_code == 200


def test_what_others_can_read_is_said_at_the_start() -> None:
    """Keys, hashes and passwords in files of everybody, and a page for other machines without a login; once each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        password = folder / "password"
        password.write_text(SECRET)
        web_config = write_web_config(folder, users={"prometheus": hashed(SECRET)})
        key = folder / "server.key"
        arguments = ("--web-config", str(web_config), "--password-file", str(password), "--listen", "0.0.0.0:0")
        for file in (web_config, key, password):
            file.chmod(0o644)
        with daemon(*arguments, dsn=NO_SERVER) as watching:
            said = {event["path"]: event["message"] for event in watching.events("secret_readable")}
            assert not watching.events("login_missing")
        assert said.keys() == {str(web_config), str(key), str(password)}
        prefix = "every user of this machine can read"
        assert said[str(key)] == f"{prefix} a private key in {key}; run: chmod o-r {key}"
        assert said[str(web_config)].startswith(f"{prefix} password hashes in ")
        for file in (web_config, key, password):
            file.chmod(0o640)
        with daemon(*arguments, dsn=NO_SERVER) as watching:
            assert not watching.events("secret_readable")
    with daemon("--listen", "0.0.0.0:0", dsn=NO_SERVER) as watching:
        (said_of_page,) = watching.events("login_missing")
        assert said_of_page["message"].startswith(f"the page at {watching.address} needs no login: ")
    with daemon(dsn=NO_SERVER) as watching:
        assert not watching.events("login_missing")


def test_passwords_work_without_tls(tmp_path: Path) -> None:
    """A reverse proxy may speak TLS instead."""
    web_config = write_plain_config(tmp_path, users={"prometheus": hashed(SECRET)})
    with daemon("--web-config", str(web_config), dsn=NO_SERVER) as watching:
        assert watching.address.startswith("http://")
        assert watching.get("/metrics").status_code == 401
        assert httpx.get(f"{watching.address}/metrics", auth=("prometheus", SECRET)).status_code == 200
        assert answer(watching, "/", "any.example", auth=("prometheus", SECRET)).status_code == 200


def test_failed_logins_are_logged_and_counted(tmp_path: Path) -> None:
    """With their address, and without anything that the client sent."""
    web_config = write_plain_config(tmp_path, users={"prometheus": hashed(SECRET)})
    with daemon("--web-config", str(web_config), dsn=NO_SERVER) as watching:
        for password in ("wrong-one", "wr0ng-one"):
            assert answer(watching, "/", "localhost", auth=("<b>\nroot", password)).status_code == 401
        assert answer(watching, "/", "localhost").status_code == 401  # a browser asks without a login first
        counted = "pgwatch_sessions_http_logins_failed_total 2.0\n"
        until(lambda: counted in answer(watching, "/metrics", "localhost", auth=("prometheus", SECRET)).text)
        (failed,) = watching.events("login_failed")
        assert failed["message"] == "1 login from 127.0.0.1 failed: wrong user or password"
        assert not re.search("root|wr[o0]ng-", watching.log.read_text())


@pytest.mark.parametrize("command", ["run", "config"])
def test_a_web_configuration_that_cannot_be_used_is_exit_2(command: str, tmp_path: Path) -> None:
    """Each mistake has its file and line. The daemon does not start without the protection that was asked for."""
    web_config = write_web_config(tmp_path, "min_version: TLS10", users={"prometheus": SECRET})
    ended = finished(command, env=environment(WEB_CONFIG=str(web_config), LISTEN="127.0.0.1:0"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert SECRET not in ended.stderr
    places = re.findall(rf"error: {re.escape(str(web_config))}:? (line \d+): .*\n", ended.stderr)
    assert (places, ended.stderr.count("\n")) == (["line 4", "line 6"], 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"WEB_CONFIG": "/not/there.yml"}, "PGWATCH_SESSIONS_WEB_CONFIG: cannot use /not/there.yml"),
        ({"WEB_CONFIG": "/dev/null"}, "PGWATCH_SESSIONS_WEB_CONFIG: cannot use /dev/null: not a regular file"),
        ({"METRICS_LISTEN": "9489"}, "PGWATCH_SESSIONS_METRICS_LISTEN: must be an address"),
    ],
)
def test_settings_of_access_are_checked_with_the_others(settings: dict[str, str], message: str) -> None:
    """The message names the place that gave them."""
    ended = finished("config", env=environment(**settings))
    assert ended.returncode == 2
    assert f"environment variable {message}" in ended.stderr


def test_the_effective_configuration_loads_again(tmp_path: Path) -> None:
    """`config` shows both settings as they are written, and what it prints is a configuration file."""
    web_config = write_plain_config(tmp_path, users={"prometheus": hashed(SECRET)})
    shown = finished("config", env=environment(WEB_CONFIG=str(web_config), METRICS_LISTEN="[::1]:9489"))
    values = yaml.safe_load(shown.stdout)
    assert (values["web_config"], values["metrics_listen"]) == (str(web_config), "[::1]:9489")
    file = tmp_path / "effective.yaml"
    file.write_text(shown.stdout)
    assert yaml.safe_load(finished("config", "--config", str(file)).stdout) == values


def test_an_address_for_metrics_that_is_taken_is_exit_2() -> None:
    """The message names the address and the option."""
    with daemon(dsn=NO_SERVER) as watching:
        taken = watching.address.removeprefix("http://")
        ended = finished("run", env=environment(LISTEN="127.0.0.1:0", METRICS_LISTEN=taken))
    assert ended.returncode == 2
    assert f"cannot listen on {taken}" in ended.stderr
    assert "--metrics-listen" in ended.stderr


def test_access_is_not_loaded_without_a_web_configuration() -> None:
    """Neither its modules nor bcrypt, which only it needs."""
    program = "import sys, pgwatch_sessions.command_line; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    loaded = ended.stdout.split()
    assert "pgwatch_sessions.web.http_server" in loaded
    assert not [name for name in loaded if name.startswith(("bcrypt", "pgwatch_sessions.web.access"))]


def test_the_template_engine_is_loaded_with_the_page_only() -> None:
    """Importing the commands does not import Jinja2, which takes 2 MiB."""
    program = "import sys, pgwatch_sessions.command_line; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(ended.stdout.split())
    assert "pgwatch_sessions.web.page.page" in loaded
    assert "jinja2" not in loaded
