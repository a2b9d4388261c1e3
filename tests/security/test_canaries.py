"""Secrets are put in every place of real servers, connections and requests, and searched for in every output."""

import base64
import contextlib
import gzip
import html
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import httpx
import psycopg
import pytest
from psycopg import sql

from pgwatch_sessions.demo.postgres import Cluster
from tests.security.canaries import Canary, Login, broken_dsns, logins, shown, statements
from tests.support.daemons import Daemon, daemon
from tests.support.programs import environment, finished
from tests.support.screens import on_terminal
from tests.support.servers import OwnPostgres, installed, own_server

# Every command runs once for all tests of this module.
pytestmark = pytest.mark.timeout(600)

#: What somebody can read: a name of the output, and its text.
Outputs = Mapping[str, str]

_HTTP_SECRET = "canary700kwzx"
_QUICK = ("--hold-limit", "1s")
#: The logins that are tried with a wrong password too.
_REFUSED = ("uri", "keywords", "parameter")
_PATHS = (
    "/",
    "/metrics",
    "/api/v1/leaks",
    "/api/v1/sessions",
    "/api/v1/diagnosis",
    "/healthz",
    "/readyz",
    "/runbooks/",
)

_STATEMENTS, _SHOWN, _LOGINS, _BROKEN = tuple(statements()), tuple(shown()), tuple(logins()), tuple(broken_dsns())


@pytest.fixture(scope="module")
def server(template_of: Callable[[int], Cluster]) -> Iterator[OwnPostgres]:
    """Return a server on which each canary has a session, and each login a role with its password."""
    asking = [f"host all {login.name} 127.0.0.1/32 scram-sha-256" for login in _LOGINS]
    settings = {"max_connections": "200"}
    with (
        own_server(template_of(max(installed())), settings=settings, hba=asking) as own,
        contextlib.ExitStack() as held,
    ):
        with psycopg.connect(own.dsn(), autocommit=True) as superuser:
            superuser.execute("CREATE TABLE orders (id int)")
            for login in _LOGINS:
                superuser.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login.name), password_of(login))
                )
        for number, canary in enumerate((*_STATEMENTS, *_SHOWN)):
            session = psycopg.connect(own.dsn(application_name=f"app{number}"), autocommit=True)
            held.callback(session.close)
            session.pgconn.exec_(b"BEGIN")
            session.pgconn.exec_(canary.planted.encode())  # some are errors
        yield own


def password_of(login: Login) -> str:
    """Return the password, of which the secret is a part."""
    around = {"encoded": "@/{}:", "quoted": "a '{}"}
    return around.get(login.name, "{}").format(login.secret)


@pytest.fixture(scope="module")
def config(server: OwnPostgres, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, str]]:
    """Return a configuration with every login, and the environment that it needs."""
    folder = tmp_path_factory.mktemp("canaries")
    secrets = {login.name: login.secret for login in _LOGINS}
    together = [login for login in _LOGINS if not login.variables]
    for name, content in {
        "password": secrets["file"],
        "passfile": f"*:*:*:passfile:{secrets['passfile']}",
        "services": f"[canary]\nhost=127.0.0.1\nport={server.port}\nuser=service\ndbname=postgres\n"
        f"password={secrets['service']}\n",
    }.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o600)
    lines = [f"- {{name: main, dsn: '{server.dsn()}'}}"]
    for login in together:
        dsn, further = (text.format(port=server.port, folder=folder) for text in (login.dsn, login.settings))
        lines += [f"- name: {login.name}", f"  dsn: {yaml_text(dsn)}", *([f"  {further}"] if further else [])]
        if login.name in _REFUSED:
            # A role that there is not: its login is refused, and the server's words are in the log.
            lines += [
                f"- name: wrong-{login.name}",
                f"  dsn: {yaml_text(dsn.replace(login.secret, 'x' + login.secret))}",
            ]
    path = folder / "config.yaml"
    path.write_text("servers:\n" + "\n".join(lines) + "\n")
    return path, {"PGSERVICEFILE": str(folder / "services")}


def yaml_text(text: str) -> str:
    """Return a text in single quotes."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


@pytest.fixture(scope="module")
def outputs(
    server: OwnPostgres, config: tuple[Path, Mapping[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outputs]:
    """Run every command on the configuration; return what it wrote."""
    path, variables = config
    folder = tmp_path_factory.mktemp("outputs")
    kept = {"record-dir": folder / "recordings", "state-dir": folder / "states"}
    given = [part for name, directory in kept.items() for part in (f"--{name}", str(directory))]
    texts: dict[str, str] = {}
    with daemon(
        *("--config", str(path), "--log-level", "debug"),
        *_QUICK,
        *given,
        interval="2s",
        variables=variables,
        libraries_log=True,
    ) as watching:
        texts |= asked(watching)
        texts["the log"] = watching.log.read_text()
        texts |= {f"{name} of the process": text for name, text in process_of(watching.process.pid).items()}
        watching.end_by(signal.SIGTERM)
        texts["the log after the end"] = watching.log.read_text()
    for directory in kept.values():
        files = sorted(directory.iterdir())
        assert files
        texts |= {f"{directory.name}/{file.name}": read_gzip(file) for file in files}
    env = {**environment(), **variables}
    texts |= commands(path, folder, env)
    texts["top"] = live_view(path, env)
    texts["a traceback"] = traceback_of(path, env)
    for login in _LOGINS:
        if login.variables:
            texts |= tried(login, path.parent, server)
    yield texts
    shutil.rmtree(folder)


def asked(watching: Daemon) -> dict[str, str]:
    """Return every answer of a daemon that has found the leaks and tried every login."""
    watching.scrape_when(
        lambda scrape: (
            len(scrape.all("up")) == len(scrape.all("poll_duration_seconds_count")) > 0
            and bool(scrape.all("leaks_opened_total", database="postgres"))
            and scrape.polls(server="main") >= 4
        ),
        within=60,
    )
    login = base64.b64encode(f"me:{_HTTP_SECRET}".encode()).decode()
    answers = {}
    for path in _PATHS:
        answers[path] = watching.get(path).text
        headers = {"Authorization": f"Basic {login}", "Cookie": f"token={_HTTP_SECRET}"}
        httpx.get(f"{watching.address}{path}?token={_HTTP_SECRET}", headers=headers, timeout=5)
    names = {finding["id"] for finding in watching.get("/api/v1/leaks").json().get("leaks", ()) if "id" in finding}
    answers |= {f"/leaks/{name}": watching.get(f"/leaks/{quote(name)}").text for name in names}
    return answers


def process_of(pid: int) -> dict[str, str]:
    """Return what `ps` shows of a process."""
    return {name: Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "comm")}


def read_gzip(file: Path) -> str:
    """Return the whole content."""
    return gzip.decompress(file.read_bytes()).decode("utf-8", "surrogatepass")


def commands(config: Path, folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Return what each command writes that ends by itself."""
    recording = folder / "recording.jsonl"
    given = ("--config", str(config))
    texts = {}
    for arguments in (
        ("config", *given),
        ("config", *given, "--format", "table", "--test"),
        ("check", *given, *_QUICK),
        ("check", *given, *_QUICK, "--format", "json"),
        ("terminate-sql", *given, *_QUICK),
        ("record", *given, "--out", str(recording), "--count", "3", "--interval", "1s"),
        ("replay", str(recording), *_QUICK),
        ("replay", str(recording), *_QUICK, "--format", "json"),
    ):
        ended = finished(*arguments, env=env)
        texts[" ".join(arguments[:1] + arguments[3:])] = ended.stdout + ended.stderr
    texts["recording.jsonl"] = recording.read_text()
    return texts


def tried(login: Login, folder: Path, server: OwnPostgres) -> dict[str, str]:
    """Return what commands write that log in by a variable of libpq's."""
    env = {**environment(), **{key: value.format(folder=folder) for key, value in login.variables.items()}}
    texts = {}
    for command in (("config",), ("config", "--test")):
        ended = finished(*command, "--dsn", login.dsn.format(port=server.port), env=env)
        assert "authentication failed" not in ended.stdout + ended.stderr
        texts[f"{' '.join(command)}, {login.name}"] = ended.stdout + ended.stderr
    return texts


def live_view(config: Path, env: Mapping[str, str]) -> str:
    """Return all that `top` writes to its terminal, a finding opened."""
    with on_terminal(
        "top", "--config", str(config), *_QUICK, "--interval", "1s", columns=200, rows=60, env=env
    ) as terminal:
        terminal.until_shown(lambda text: "NOTICE" in text or "WARNING" in text or "CRITICAL" in text, within=60)
        terminal.press("\r")
        terminal.until_shown(lambda text: "likely cause" in text)
        terminal.press("qqq")
        terminal.end()
    return terminal.written.decode("utf-8", "replace")


#: A mistake in our own code, deep in the daemon, while connection strings and statements are in every frame.
_FAULT = """
import sys
import pgwatch_sessions.poller as poller

def advance(state, outcome, **_):
    raise RuntimeError("a fault of ours")

poller.advance = advance
from pgwatch_sessions.cli import main
sys.exit(main())
"""


def traceback_of(config: Path, env: Mapping[str, str]) -> str:
    """Return what the daemon writes when it ends by a mistake of its own."""
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            _FAULT,
            "run",
            "--config",
            str(config),
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "debug",
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "a fault of ours" in ended.stderr
    return ended.stdout + ended.stderr


def seen_in(outputs: Outputs, secret: str) -> Sequence[str]:
    """Return the outputs that have the secret, also if it was coded in base64 or escaped."""
    coded = {base64.b64encode(secret.encode()[skipped:])[:-4].decode() for skipped in range(3)}
    forms = {secret, secret.upper(), secret[::-1], *coded}
    return [name for name, text in outputs.items() if any(form in html.unescape(text) for form in forms)]


def cases(canaries: Sequence[Canary | Login]) -> list[object]:
    """Return parameters of a test."""
    return [pytest.param(canary, id=canary.name) for canary in canaries]


@pytest.mark.promise("Literals of statements stay secret.")
@pytest.mark.parametrize("canary", cases(_STATEMENTS))
def test_literal_of_a_statement_is_in_no_output(outputs: Outputs, canary: Canary) -> None:
    """Every form of a literal, complete and cut, in every output of the daemon and of each command."""
    assert seen_in(outputs, canary.secret) == []


@pytest.mark.parametrize("canary", cases(_SHOWN))
def test_name_is_shown_by_design(outputs: Outputs, canary: Canary) -> None:
    """Names of tables and columns, and the tags that say where a statement comes from."""
    assert seen_in(outputs, canary.secret)


@pytest.fixture(scope="module")
def outputs_without_texts(server: OwnPostgres, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """Return what is written with `statements: off`."""
    folder = tmp_path_factory.mktemp("off")
    file = folder / "recording.jsonl"
    env = environment(DSN=server.dsn(), STATEMENTS="off")
    checked = finished("check", "--format", "json", *_QUICK, env=env)
    assert finished("record", "--out", str(file), "--count", "1", env=env).returncode == 0
    return {"check": checked.stdout + checked.stderr, "recording.jsonl": file.read_text()}


@pytest.mark.promise("With `statements: off`, nothing of a statement is kept.")
@pytest.mark.parametrize("canary", cases(_SHOWN))
def test_without_statements_no_name_is_kept(outputs_without_texts: Outputs, canary: Canary) -> None:
    """Neither names nor tags of statements are shown or recorded."""
    assert seen_in(outputs_without_texts, canary.secret) == []


@pytest.mark.promise("Passwords stay secret.")
@pytest.mark.parametrize("login", cases(_LOGINS))
def test_password_is_in_no_output(outputs: Outputs, login: Login) -> None:
    """Right or wrong, given by URI, keywords, variable, service or file: in no output, also not in a traceback."""
    assert seen_in(outputs, login.secret) == []


def test_every_login_was_tried(outputs: Outputs) -> None:
    """The right passwords let the daemon in, the wrong ones are refused: nothing above passed for lack of a try."""
    for login in _LOGINS:
        if not login.variables:
            assert f'pgwatch_sessions_up{{server="{login.name}"}} 1.0' in outputs["/metrics"]
    assert 'pgwatch_sessions_up{server="wrong-uri"} 0.0' in outputs["/metrics"]


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """Return what is said of connection strings that cannot be used: all in a file, one as option and variable."""
    config = tmp_path_factory.mktemp("broken") / "config.yaml"
    config.write_text("servers:\n" + "".join(f"- {{dsn: {yaml_text(canary.planted)}}}\n" for canary in _BROKEN))
    texts = {}
    for name, arguments, env in (
        ("a file", ("config", "--config", str(config)), environment()),
        ("an option", ("check", "--dsn", _BROKEN[0].planted), environment()),
        ("a variable", ("check",), environment(DSN=_BROKEN[0].planted)),
    ):
        ended = finished(*arguments, env=env)
        assert ended.returncode == 2
        texts[name] = ended.stdout + ended.stderr
    for number in range(len(_BROKEN)):
        assert f"servers[{number}].dsn" in texts["a file"]
    return texts


@pytest.mark.promise("Passwords stay secret.")
@pytest.mark.parametrize("canary", cases(_BROKEN))
def test_broken_dsn_is_not_quoted(complaints: Outputs, canary: Canary) -> None:
    """A connection string that cannot be used is reported by its place, whatever is wrong with it."""
    assert seen_in(complaints, canary.secret) == []


@pytest.mark.promise("Passwords stay secret.")
def test_what_http_clients_send_is_in_no_output(outputs: Outputs) -> None:
    """Neither a login, a cookie nor a query string is written anywhere."""
    assert seen_in(outputs, _HTTP_SECRET) == []
