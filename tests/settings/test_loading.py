import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource

from pgwatch_sessions.core.judging.configured_limits import ConfiguredLimit
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.settings.address import Address
from pgwatch_sessions.settings.model import Settings, leaves
from pgwatch_sessions.settings.secret_files import read_secret
from pgwatch_sessions.settings.sources import variable
from tests.support.given_settings import SECRET, dsn_of, errors_of, loaded, written

# --- precedence ---


def test_the_first_source_wins(tmp_path: Path) -> None:
    """The order is: command line, environment, `_FILE` variables, secrets directory, file, default."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for number, name in enumerate(("interval", "timeout", "hold_limit", "horizon"), start=31):
        written(secrets / f"pgwatch_sessions_{name}", f"{number}\n")
    file = "interval: 41\ntimeout: 42\nhold_limit: 43\nhorizon: 44\ngrowth_window: 45\n"
    environ = {
        "PGWATCH_SESSIONS_CONFIG": written(tmp_path / "config.yaml", file),
        "PGWATCH_SESSIONS_SECRETS_DIR": str(secrets),
        "PGWATCH_SESSIONS_INTERVAL": "11",
        "pgwatch_sessions_timeout": "12",
        "PGWATCH_SESSIONS_TIMEOUT_FILE": written(tmp_path / "timeout", "22"),
        "PGWATCH_SESSIONS_HOLD_LIMIT_FILE": written(tmp_path / "hold_limit", "23\n"),
        "PGWATCH_SESSIONS_MAX_CLIENTS": "",
    }
    settings = loaded({"interval": "1", "timeout": None}, environ)
    assert (settings.interval, settings.timeout, settings.hold_limit) == (1, 12, 23)
    assert (settings.horizon, settings.growth_window, settings.max_clients) == (34, 45, 100)


def test_the_options_config_and_secrets_dir_win_over_their_variables(tmp_path: Path) -> None:
    """The files that the variables name are then not even read."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    written(secrets / "PGWATCH_SESSIONS_DSN", f"postgresql://u:{SECRET}@db/x\n")
    written(secrets / "unrelated", "of another program")
    settings = loaded(
        {"config": written(tmp_path / "a.yaml", "interval: 3s"), "secrets_dir": str(secrets)},
        {"PGWATCH_SESSIONS_CONFIG": "/missing.yaml", "PGWATCH_SESSIONS_SECRETS_DIR": "/missing"},
    )
    assert settings.interval == 3
    assert dsn_of(settings) == f"postgresql://u:{SECRET}@db/x"


def test_a_setting_in_a_section_has_two_underscores_in_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`web: {title: x}` in the file is `PGWATCH_SESSIONS_WEB__TITLE=x` in the environment."""

    class Web(BaseModel):
        title: str

    class Sectioned(Settings):
        web: Web

    assert variable(("web", "title")) == "PGWATCH_SESSIONS_WEB__TITLE"
    assert ("web", "title") in dict(leaves(Sectioned))
    monkeypatch.setenv("PGWATCH_SESSIONS_WEB__TITLE", "x")
    assert EnvSettingsSource(Sectioned, case_sensitive=False)()["web"] == {"title": "x"}


def test_the_thresholds_default_to_those_of_the_policy() -> None:
    """`Policy` is the only place of these defaults, and every field of it can be set."""
    assert loaded().policy == Policy()
    options = {
        "hold_limit": "2m",
        "growth_window": "3m",
        "horizon": "4m",
        "max_clients": "5",
        "tools": "psql, dump*",
    }
    assert loaded(options).policy == Policy(
        hold_limit=120, growth_window=180, horizon=240, max_clients=5, tools=("psql", "dump*")
    )


def test_limits_of_places_are_listed_in_the_file(tmp_path: Path) -> None:
    """Each has a pattern of the application, of the site, or both."""
    text = """
hold_limits:
  - {application: "etl-*", limit: 30m}
  - {application: web, site: "/reports/*", limit: 90}
"""
    policy = loaded({"config": written(tmp_path / "config.yaml", text)}).policy
    assert policy == Policy(
        hold_limits=(
            ConfiguredLimit(application="etl-*", limit=1800.0),
            ConfiguredLimit(application="web", site="/reports/*", limit=90.0),
        )
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("hold_limits: 3m", "line 1: hold_limits: must be a list, such as `- {site: /reports, limit: 10m}`"),
        ("hold_limits: [/reports]", "[0]: must be a mapping, such as `{site: /reports, limit: 10m}`"),
        (
            "hold_limits:\n- {limit: 1m}",
            "line 2: hold_limits[0]: needs application, site or both; for all sessions, set",
        ),
        ("hold_limits:\n- {site: /x}", "line 2: hold_limits[0]: has no limit; add it"),
        ("hold_limits: [{site: ' ', limit: 1m}]", "[0].site: must not be empty; remove it to match all"),
        ("hold_limits: [{site: 5, limit: 1m}]", "[0].site: must be text; put it in quotes"),
        ("hold_limits: [{site: /x, limit: 0}]", "[0].limit: must be from 1s to 168h, not 0s"),
        ("hold_limits: [{sites: /x, site: /x, limit: 1m}]", "[0].sites: unknown setting; did you mean site?"),
    ],
)
def test_errors_in_limits_of_places_name_their_place(tmp_path: Path, text: str, error: str) -> None:
    """The line, the item, and what to do."""
    (found,) = errors_of({"config": written(tmp_path / "config.yaml", text)})
    assert error in found


def test_limits_of_places_cannot_be_a_variable() -> None:
    """The error does not propose hold_limit, which has nearly the same name."""
    (error,) = errors_of({}, {"PGWATCH_SESSIONS_HOLD_LIMITS": "etl-*=30m"})
    assert error.endswith("unknown setting; set `hold_limits` in the configuration file")


def test_settings_cannot_be_changed() -> None:
    """Loaded settings are a frozen value."""
    settings = loaded()
    with pytest.raises(ValidationError):
        settings.interval = 1.0


# --- servers ---


def test_several_servers_are_listed_in_the_file(tmp_path: Path) -> None:
    """Each has its own name, DSN and password file. A bare `off`, which YAML reads as false, is taken as text."""
    password = written(tmp_path / "password", f"{SECRET}\n")
    text = f"""
servers:
  - dsn: postgresql://a/x
  - {{name: b, dsn: postgresql://b/x, password_file: {password}}}
statements: off
listen: "[::1]:9488"
"""
    settings = loaded({"config": written(tmp_path / "config.yaml", text)})
    assert [(server.name, server.password_file) for server in settings.servers] == [
        ("a:5432", None),
        ("b", Path(password)),
    ]
    assert settings.statements == "off"
    assert settings.listen == Address(host="::1", port=9488)


def test_one_server_and_a_list_of_servers_conflict(tmp_path: Path) -> None:
    """The error names the place of the DSN."""
    config = written(tmp_path / "config.yaml", "servers: [{dsn: postgresql://a/x}]")
    (error,) = errors_of({"config": config}, {"PGWATCH_SESSIONS_DSN": f"postgresql://u:{SECRET}@b/x"})
    assert error.startswith("environment variable PGWATCH_SESSIONS_DSN: conflicts with `servers`; set one server by")


def test_a_password_file_is_read_each_time(tmp_path: Path) -> None:
    """The settings keep only the path. One trailing newline is removed. An empty file is an OSError with its path."""
    path = tmp_path / "password"
    written(path, " one \n\n")
    (server,) = loaded({}, {"PGWATCH_SESSIONS_PASSWORD_FILE": str(path)}).servers
    assert server.password_file == path
    assert read_secret(path) == " one \n"
    written(path, "two\r\n")
    assert read_secret(path) == "two"
    written(path, "\n")
    with pytest.raises(OSError, match="empty") as raised:
        read_secret(path)
    assert raised.value.filename == str(path)


# --- errors ---


def test_all_errors_are_reported_at_once_with_their_places(tmp_path: Path) -> None:
    """Errors of all sources come together. None hides another, and none shows a secret."""
    config = tmp_path / "config.yaml"
    text = f"""interval: true
intervall: 5
servers:
  - dsn: hots=db password={SECRET}
  - {{nmae: a, dsn: "postgresql://u:hun@{SECRET}@h/x", password_file: /missing}}
  - postgresql://u:{SECRET}@h/x
  - name: 5
  - name: a
  - {{name: a, passwrod: {SECRET}, 5: {SECRET}}}
log_level: trace
listen: ::1:3
record_max_bytes: 1.5
1: {SECRET}
postgresql://u:{SECRET}@h/x: 1
statements: off
statements: off
INTERVAL: 5
timeout: 5s
"""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    written(secrets / "pgwatch_sessions_growth_window", "")
    written(secrets / "pgwatch_sessions_dns", SECRET)
    environment, secret = "environment variable PGWATCH_SESSIONS_", f"secret file {secrets}/pgwatch_sessions_"
    expected = [
        ("--max-clients", "must be from 1 to 10000, not 0"),
        (f"{environment}TIMEOUT", "must be from 100ms to 10m, not 0s"),
        (f"{environment}HOLDLIMIT", "unknown setting; did you mean PGWATCH_SESSIONS_HOLD_LIMIT?"),
        (f"{environment}HORIZON_FILE", "cannot use /missing: no such file"),
        (f"{environment}SERVERS", "in the configuration file"),
        (f"{environment}PORT", "unknown setting; remove it"),
        (f"{secret}growth_window", f"cannot use {secrets}/pgwatch_sessions_growth_window: empty"),
        (f"{secret}dns", "unknown setting; did you mean PGWATCH_SESSIONS_DSN?"),
        (f"{config} line 1: interval", "must be a duration"),
        (f"{config} line 2: intervall", "unknown setting; did you mean interval?"),
        (f"{config} line 4: servers[0].dsn", "unknown parameter"),
        (f"{config} line 5: servers[1].nmae", "unknown setting; did you mean name?"),
        (f"{config} line 5: servers[1].dsn", "percent-encode"),
        (f"{config} line 5: servers[1].password_file", "cannot use /missing: no such file"),
        (f"{config} line 6: servers[2]", "must be a mapping"),
        (f"{config} line 7: servers[3].name", "must be text; put it in quotes"),
        (f"{config} line 9: servers[5].name", "duplicate server name a; give each server a name of its own"),
        (f"{config} line 9: servers[5].passwrod", "unknown setting; did you mean password_file?"),
        (f"{config} line 9: servers[5]", "has a key that is not text; remove it"),
        (f"{config} line 10: log_level", "must be 'debug', 'info', 'warning' or 'error'"),
        (f"{config} line 11: listen", "in brackets"),
        (f"{config} line 12: record_max_bytes", "must be a size"),
        (f"{config} line 13: 1", "unknown setting"),
        (f"{config} line 14: …", "unknown setting"),
        (f"{config} line 17: INTERVAL", "unknown setting; did you mean interval?"),
        (f"{config} line 16: statements", "duplicate key, also on line 15; remove one"),
    ]
    errors = errors_of(
        {"config": written(config, text), "max_clients": "0"},
        {
            "PGWATCH_SESSIONS_TIMEOUT": "0",
            "PGWATCH_SESSIONS_HOLDLIMIT": SECRET,
            "PGWATCH_SESSIONS_HORIZON_FILE": "/missing",
            "PGWATCH_SESSIONS_SERVERS": SECRET,
            "PGWATCH_SESSIONS_PORT": "9488",
            "PGWATCH_SESSIONS_SECRETS_DIR": str(secrets),
        },
    )
    for place, message in expected:
        assert [error for error in errors if error.startswith(f"{place}: ") and message in error], (place, errors)
    assert len(errors) == len(expected), errors


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("interval: 5\n  timeout: 3", " line 2, column 10: ", "invalid YAML (mapping values are not allowed"),
        (f"dsn: *{SECRET}", " line 1, column 6: ", "invalid YAML (found undefined alias"),
        (f"dsn: !{SECRET} x", " line 1, column 6: ", "tag"),
        ("interval: 5\ninterval: 6", " line 2: interval: ", "duplicate key, also on line 1; remove one"),
        ("servers: &x [*x]", ": ", "inside itself"),
        ("interval: !!int ten", ": ", "invalid YAML"),
        ("interval: \x01", ": ", "invalid YAML"),
        (SECRET, ": ", "must be a mapping"),
        ("servers:", " line 1: servers: ", "must be a list"),
        ("tools:", " line 1: tools: ", "must be a list of patterns"),
        ("servers: []", " line 1: servers: ", "must not be empty"),
    ],
)
def test_an_invalid_file_is_an_error_with_its_line(tmp_path: Path, text: str, place: str, message: str) -> None:
    """The error has the parser's line and reason, and nothing that the parser quotes from the file."""
    config = written(tmp_path / "config.yaml", text)
    (error,) = errors_of({"config": config})
    assert error.startswith(f"{config}{place}")
    assert message in error


@pytest.mark.parametrize(
    ("options", "environ", "error"),
    [
        ({"config": "/missing.yaml"}, {}, "--config: cannot use /missing.yaml: no such file or directory"),
        (
            {},
            {"PGWATCH_SESSIONS_CONFIG": "/"},
            "environment variable PGWATCH_SESSIONS_CONFIG: cannot use /: not a regular file",
        ),
        ({"secrets_dir": "/missing"}, {}, "--secrets-dir: cannot use /missing: no such file or directory"),
        ({"record_dir": "/dev/null"}, {}, "--record-dir: /dev/null is not a directory"),
        ({"state_dir": "/dev/null"}, {}, "--state-dir: /dev/null is not a directory"),
        ({"web_config": "/dev/null"}, {}, "--web-config: cannot use /dev/null: not a regular file"),
        ({"password_file": "/dev/null"}, {}, "--password-file: cannot use /dev/null: not a regular file"),
        ({"password_file": "/"}, {}, "--password-file: cannot use /: not a regular file"),
        ({"name": " "}, {}, "--name: must be 1 to 200 printable characters"),
    ],
)
def test_an_error_names_the_option_or_variable(options: dict[str, object], environ: dict[str, str], error: str) -> None:
    """A file that cannot be used is reported where its path was given."""
    assert errors_of(options, environ) == [error]


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    """Configuration and secrets must be UTF-8; a pipe is refused without waiting for its writer."""
    binary, pipe = tmp_path / "binary", tmp_path / "pipe"
    binary.write_bytes(b"\xff\xfe")
    os.mkfifo(pipe)
    assert errors_of({"config": binary, "password_file": str(binary)}) == [
        f"--password-file: cannot use {binary}: not UTF-8 text",
        f"{binary}: not UTF-8 text; save the file as UTF-8",
    ]
    assert errors_of({"password_file": str(pipe)}) == [f"--password-file: cannot use {pipe}: not a regular file"]


def test_files_that_are_read_whole_are_checked_first(tmp_path: Path) -> None:
    """A pipe would make the program wait, and a huge file would take its memory."""
    pipe, huge = tmp_path / "pipe", tmp_path / "huge"
    os.mkfifo(pipe)
    with huge.open("wb") as file:
        file.truncate(2**40)  # it takes no space
    not_regular, too_large = f"cannot use {pipe}: not a regular file", f"cannot use {huge}: larger than 1024 KiB"
    assert errors_of({"config": str(pipe)}) == [f"--config: {not_regular}"]
    assert errors_of({"config": str(huge)}) == [f"--config: {too_large}"]
    assert errors_of({"dsn": f"postgresql://a/x?sslrootcert={pipe}"}) == [f"--dsn: sslrootcert: {not_regular}"]
    for path, error in ((pipe, not_regular), (huge, too_large)):
        services = {"PGSERVICE": "shop", "PGSERVICEFILE": str(path)}
        assert errors_of({}, services) == [f"service file: {error}"]


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    """It sets nothing."""
    assert loaded({"config": written(tmp_path / "empty.yaml", "# nothing\n")}) == loaded()


def test_a_secret_instead_of_its_file_is_not_shown() -> None:
    """A user who gives the password itself as the file's name does not find it in the log."""
    assert errors_of({"password_file": SECRET}) == [
        "--password-file: cannot use the named file: no such file or directory"
    ]
    errors_of({}, {"PGWATCH_SESSIONS_DSN_FILE": f"postgresql://u:{SECRET}@h/x"})


def test_variables_that_kubernetes_defines_for_a_service_are_ignored() -> None:
    """A service that is called pgwatch-sessions puts variables with our prefix into every container beside it."""
    loaded(
        {},
        {
            "PGWATCH_SESSIONS_SERVICE_HOST": "10.0.0.1",
            "PGWATCH_SESSIONS_SERVICE_PORT": "9488",
            "PGWATCH_SESSIONS_SERVICE_PORT_METRICS": "9488",
            "PGWATCH_SESSIONS_PORT": "tcp://10.0.0.1:9488",
            "PGWATCH_SESSIONS_PORT_9488_TCP": "tcp://10.0.0.1:9488",
            "PGWATCH_SESSIONS_PORT_9488_TCP_ADDR": "10.0.0.1",
            "PGWATCH_SESSIONS_WEB_PORT": "tcp://10.0.0.2:80",
        },
    )
