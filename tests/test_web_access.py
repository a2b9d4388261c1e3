"""The daemon as a process with a web configuration and a second address."""

import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from pgwatch_sessions.demo.postgres import Postgres
from tests.exposition.certificates import (
    OURS,
    authority,
    hashed,
    write_certificate,
    write_plain_config,
    write_web_config,
)
from tests.support.daemons import daemon
from tests.support.programs import environment, finished
from tests.support.waiting import until

SECRET = "hunter2-of-all"


def trusting() -> ssl.SSLContext:
    """Return what a careful client uses."""
    context = ssl.create_default_context()
    authority(OURS).configure_trust(context)
    return context


def test_both_addresses_speak_tls_and_ask_for_passwords(postgres: Postgres, tmp_path: Path) -> None:
    """The log names both; the page is at one of them only; the password is nowhere."""
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
        assert client.get(f"{metrics}/metrics").status_code == 401
        assert client.get(f"{metrics}/", auth=login).status_code == 404
        assert client.get(f"{page}/", auth=login).status_code == 200
        assert client.get(f"{page}/").status_code == 401
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(page)
        write_certificate(tmp_path, "server", "elsewhere.example")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{metrics}/healthz", verify=trusting())
        assert watching.events("web_config_reloaded")
        log = watching.log.read_text()
    assert SECRET not in log
    assert "$2b$" not in log


def test_passwords_work_without_tls(tmp_path: Path) -> None:
    """For those behind a proxy that speaks TLS."""
    web_config = write_plain_config(tmp_path, users={"prometheus": hashed(SECRET)})
    with daemon("--web-config", str(web_config), dsn="postgresql://u@127.0.0.1:1/x") as watching:
        assert watching.address.startswith("http://")
        assert watching.get("/metrics").status_code == 401
        assert httpx.get(f"{watching.address}/metrics", auth=("prometheus", SECRET)).status_code == 200


@pytest.mark.parametrize("command", ["run", "config"])
def test_a_web_configuration_that_cannot_be_used_is_exit_2(command: str, tmp_path: Path) -> None:
    """Each mistake with path and reason; the daemon does not start half open."""
    web_config = write_web_config(tmp_path, "min_version: TLS10", users={"prometheus": SECRET})
    (tmp_path / "server.key").unlink()
    ended = finished(command, env=environment(WEB_CONFIG=str(web_config), LISTEN="127.0.0.1:0"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert SECRET not in ended.stderr
    lines = ended.stderr.splitlines()
    assert [line.partition(f"error: {web_config} ")[2].partition(": ")[0] for line in lines] == ["line 4", "line 7"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"WEB_CONFIG": "/not/there.yml"},
            "environment variable PGWATCH_SESSIONS_WEB_CONFIG: cannot use /not/there.yml",
        ),
        ({"WEB_CONFIG": "/dev/null"}, "environment variable PGWATCH_SESSIONS_WEB_CONFIG: /dev/null is not a"),
        ({"METRICS_LISTEN": "9489"}, "environment variable PGWATCH_SESSIONS_METRICS_LISTEN: must be an address"),
    ],
)
def test_settings_of_access_are_checked_with_the_others(settings: dict[str, str], message: str) -> None:
    """With the place that gave them."""
    ended = finished("config", env=environment(**settings))
    assert ended.returncode == 2
    assert message in ended.stderr


def test_what_is_in_effect_can_be_given_back(tmp_path: Path) -> None:
    """`config` shows both settings as they are written."""
    web_config = write_plain_config(tmp_path, users={"prometheus": hashed(SECRET)})
    shown = finished("config", env=environment(WEB_CONFIG=str(web_config), METRICS_LISTEN="[::1]:9489"))
    assert f"web_config: {web_config}\n" in shown.stdout
    assert "metrics_listen: '[::1]:9489'\n" in shown.stdout
    file = tmp_path / "effective.yaml"
    file.write_text(shown.stdout)
    assert finished("config", "--config", str(file)).stdout == shown.stdout


def test_an_address_for_metrics_that_is_taken_is_exit_2() -> None:
    """The message names it, and both options."""
    with daemon(dsn="postgresql://u@127.0.0.1:1/x") as watching:
        taken = watching.address.removeprefix("http://")
        ended = finished("run", env=environment(LISTEN="127.0.0.1:0", METRICS_LISTEN=taken))
    assert ended.returncode == 2
    assert f"cannot listen on {taken}" in ended.stderr
    assert "--metrics-listen" in ended.stderr


def test_without_a_web_configuration_nothing_of_it_is_loaded() -> None:
    """Memory is for those who use it."""
    program = "import sys, pgwatch_sessions.command_line; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(ended.stdout.split())
    assert "pgwatch_sessions.web.app" in loaded
    assert not {name for name in loaded if name.startswith(("bcrypt", "pgwatch_sessions.exposition.access"))}
    assert "pgwatch_sessions.web.app_config" not in loaded
