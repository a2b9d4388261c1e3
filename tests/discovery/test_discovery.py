"""What sources find: files and HTTP servers in Prometheus' formats, from one refresh to the next."""

import base64
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pgwatch_sessions.discovery.discovery import Discovery, SourceState
from pgwatch_sessions.discovery.target_groups import MAX_BYTES
from pgwatch_sessions.settings.model import ServersFromSettings
from tests.support.given_settings import errors_of, loaded, written

DSN = "postgresql://pgwatch_sessions@{target}/postgres"


class Inventory(http.server.BaseHTTPRequestHandler):
    """Answers each path with what `answers` has, and notes the logins."""

    answers: ClassVar[dict[str, bytes]] = {}
    logins: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        """Answer a request."""
        self.logins.append((self.path, self.headers["Authorization"]))
        answer = self.answers.get(self.path, b"")
        moved = answer.startswith((b"http", b"/"))
        self.send_response(302 if moved else 200 if answer else 404)
        if moved:
            self.send_header("Location", answer.decode())
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def inventory() -> Iterator[str]:
    """Yield the address of an HTTP server that answers with `Inventory.answers`."""
    Inventory.answers.clear()
    Inventory.logins.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inventory) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def groups(*targets: str, **labels: str) -> bytes:
    """Return one target group in JSON."""
    return json.dumps([{"targets": targets, "labels": labels}]).encode()


def names(state: SourceState) -> list[str]:
    """Return the names of the servers that a source has found."""
    return list(state.servers)


async def test_servers_are_made_of_targets_and_labels(tmp_path: Path) -> None:
    """A label is percent-encoded in the URI, and not in the name."""
    (tmp_path / "a.json").write_bytes(groups("a:5432", cluster="blue 1"))
    (tmp_path / "b.yaml").write_text("- {targets: ['b:5433'], labels: {cluster: green}}")
    (tmp_path / "c.txt").write_text("no target group")
    source = ServersFromSettings(
        file_sd=(f"{tmp_path}/*.json", f"{tmp_path}/*.yaml"),
        name="{cluster}-{target}",
        dsn=f"{DSN}?options=-cx={{cluster}}",
    )
    state = await Discovery([source], ()).refresh(source)
    assert {name: server.dsn.get_secret_value() for name, server in state.servers.items() if server.dsn} == {
        "blue 1-a:5432": "postgresql://pgwatch_sessions@a:5432/postgres?options=-cx=blue%201",
        "green-b:5433": "postgresql://pgwatch_sessions@b:5433/postgres?options=-cx=green",
    }


async def test_a_server_is_let_go_when_two_refreshes_have_not_found_it(tmp_path: Path) -> None:
    """One that comes back in between stays."""
    file = tmp_path / "targets.json"
    source = ServersFromSettings(file_sd=(str(file),), dsn=DSN)
    discovery = Discovery([source], ())
    found = []
    for targets in (["a", "b"], ["a"], ["a", "b"], ["a"], ["a"]):
        file.write_bytes(groups(*targets))
        found.append(sorted(names(await discovery.refresh(source))))
    assert found == [["a", "b"], ["a", "b"], ["a", "b"], ["a", "b"], ["a"]]


async def test_a_source_that_fails_changes_nothing(tmp_path: Path) -> None:
    """However often it fails. It says why."""
    file = tmp_path / "targets.json"
    file.write_bytes(groups("a"))
    source = ServersFromSettings(file_sd=(str(file),), dsn=DSN)
    discovery = Discovery([source], ())
    await discovery.refresh(source)
    file.write_bytes(b"{")
    failed = [await discovery.refresh(source) for _ in range(3)][-1]
    assert (names(failed), failed.failure) == (["a"], f"{file}: not valid JSON")
    file.unlink()
    os.mkfifo(file)
    assert (await discovery.refresh(source)).failure == f"{file} is not a regular file"
    file.unlink()
    assert (await discovery.refresh(source)).failure == f"{file} does not exist"
    file.write_bytes(groups("a"))
    assert (await discovery.refresh(source)).failure is None


async def test_targets_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """The others are watched. The first server with a name has it."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_bytes(groups("a:1", "a:2", "b:70000", cluster="x"))
    second.write_bytes(groups("c:1", cluster="x"))
    source = ServersFromSettings(file_sd=(str(first),), name="{cluster}", dsn=DSN)
    unlabelled = ServersFromSettings(file_sd=(str(second),), name="{team}", dsn=DSN)
    other = ServersFromSettings(file_sd=(str(second),), name="{cluster}", dsn=DSN)
    discovery = Discovery([source, unlabelled, other], ())
    assert (await discovery.refresh(source)).problems == (
        "a:2: duplicate server name x; the first one has it",
        "b:70000: dsn invalid host or port; write host, host:port or [IPv6 address]:port",
    )
    assert (await discovery.refresh(unlabelled)).problems == ("c:1: the target has no label team",)
    assert (await discovery.refresh(other)).problems == ("c:1: duplicate server name x; the first one has it",)
    assert [server.name for server in discovery.servers] == ["x"]


async def test_an_http_server_is_asked_with_the_login_of_the_source(inventory: str, tmp_path: Path) -> None:
    """By name and password, or by token; both are read from files each time."""
    Inventory.answers["/targets"] = groups("a")
    secret = Path(written(tmp_path / "secret", "first\n"))
    basic = ServersFromSettings.model_validate(
        {"http_sd": f"{inventory}/targets", "basic_auth": {"username": "us", "password_file": secret}, "dsn": DSN}
    )
    token = ServersFromSettings.model_validate(
        {"http_sd": f"{inventory}/targets", "authorization": {"credentials_file": secret}, "dsn": DSN}
    )
    discovery = Discovery([basic, token], ())
    assert names(await discovery.refresh(basic)) == ["a"]
    written(secret, "second")
    await discovery.refresh(token)
    login = base64.b64encode(b"us:first").decode()
    assert Inventory.logins == [("/targets", f"Basic {login}"), ("/targets", "Bearer second")]


async def test_a_redirect_is_followed_on_the_same_host_only(inventory: str, tmp_path: Path) -> None:
    """The token goes nowhere else."""
    token = Path(written(tmp_path / "token", "hunter2"))
    Inventory.answers |= {"/here": b"/there", "/there": groups("a"), "/away": b"http://localhost:1/targets"}
    for path, found, failure in (("/here", ["a"], None), ("/away", [], "redirects to another host")):
        source = ServersFromSettings.model_validate(
            {"http_sd": inventory + path, "authorization": {"credentials_file": token}, "dsn": DSN}
        )
        state = await Discovery([source], ()).refresh(source)
        assert names(state) == found
        assert (failure or "") in (state.failure or "")
    assert ("/there", None) in Inventory.logins


async def test_an_http_server_that_gives_no_groups_is_named(inventory: str) -> None:
    """Whatever it does instead: nothing there, an error, too long an answer."""
    Inventory.answers["/long"] = b" " * (MAX_BYTES + 1)
    for url, failure in (
        (f"{inventory}/missing", "answers 404 Not Found"),
        (f"{inventory}/long", "longer than 16 MiB"),
        ("http://127.0.0.1:1/x", "Connection refused"),
    ):
        source = ServersFromSettings(http_sd=url, dsn=DSN)
        state = await Discovery([source], ()).refresh(source)
        assert state.failure is not None
        assert failure in state.failure


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("{dsn: 'postgresql://{target}/x'}", "servers_from[0]: needs one of file_sd and http_sd"),
        ("{file_sd: a.json}", "servers_from[0]: has no dsn; add it"),
        (
            "{file_sd: a.json, dsn: 'host={target}'}",
            "dsn: must be a URI such as postgresql://pgwatch_sessions@{target}/postgres",
        ),
        (
            "{file_sd: a.json, dsn: 'postgresql://u:hunter2@{target}/x'}",
            "dsn: has a password in it; write it into a file and name it as password_file",
        ),
        (
            "{file_sd: a.json, dsn: 'postgresql://{}/x'}",
            "dsn: has braces that enclose no label; write {target}, or the name of a label: {cluster}",
        ),
        (
            "{http_sd: 'https://u:hunter2@inventory/x', dsn: 'postgresql://{target}/x'}",
            "http_sd: has a login in it; write basic_auth or authorization instead",
        ),
        (
            "{file_sd: a.json, authorization: {credentials_file: FILE}, dsn: 'postgresql://{target}/x'}",
            "servers_from[0]: basic_auth, authorization and tls_config are for http_sd",
        ),
        (
            "{http_sd: 'http://x/', basic_auth: {user: x}, dsn: 'postgresql://{target}/x'}",
            "basic_auth: has no username; add it",
        ),
    ],
)
def test_what_cannot_be_a_source_is_refused(tmp_path: Path, source: str, error: str) -> None:
    """The error names the place, and no secret."""
    secret = written(tmp_path / "secret", "hunter2")
    config = written(tmp_path / "config.yaml", f"servers_from: [{source.replace('FILE', secret)}]")
    assert errors_of({"config": config})[0].endswith(error)


def test_with_sources_alone_no_server_is_listed(tmp_path: Path) -> None:
    """Without sources there is the one of libpq's variables."""
    config = written(tmp_path / "config.yaml", f"servers_from: [{{file_sd: a.json, dsn: '{DSN}'}}]")
    assert loaded({"config": config}).servers == ()
    assert len(loaded({"config": config}, {"PGWATCH_SESSIONS_DSN": "postgresql://db/x"}).servers) == 1
    assert len(loaded().servers) == 1
