import os
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pgwatch_sessions.settings.address import Address
from pgwatch_sessions.settings.dsn import masked_dsn
from pgwatch_sessions.settings.errors import SettingsError
from pgwatch_sessions.settings.loading import describe, effective, load
from pgwatch_sessions.settings.model import Settings, leaves
from pgwatch_sessions.settings.quantities import duration_text, read_duration, read_size, size_text
from pgwatch_sessions.settings.secret_files import read_secret
from pgwatch_sessions.settings.sources import from_variables

EXAMPLE = Path(__file__).parent.parent / "config" / "pgwatch-sessions.example.yaml"
SECRET = "hunter2"


def written(path: Path, text: str) -> str:
    """Write a file and return its path."""
    path.write_text(text, encoding="utf-8")
    return str(path)


def wrong(options: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the errors as a person reads them, none of which may hold the secret."""
    with pytest.raises(SettingsError) as raised:
        load(options, environ or {})
    assert SECRET not in f"{raised.value!s} {raised.value!r} {raised.getrepr(showlocals=False, chain=True)}"
    return [str(error) for error in raised.value.errors]


def dsn_of(settings: Settings) -> str | None:
    """Return the DSN of the one server."""
    (server,) = settings.servers
    return server.dsn.get_secret_value() if server.dsn else None


# --- precedence ---


def test_the_first_source_wins(tmp_path: Path) -> None:
    """Command line, environment, *_FILE variable, secrets directory, file, default: each gives way to those before."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for number, name in enumerate(("interval", "timeout", "hold_limit", "horizon"), start=31):
        written(secrets / f"pgwatch_sessions_{name}", f"{number}\n")
    six = "interval: 41\ntimeout: 42\nhold_limit: 43\nhorizon: 44\ngrowth_window: 45\n"
    environ = {
        "PGWATCH_SESSIONS_CONFIG": written(tmp_path / "config.yaml", six),
        "PGWATCH_SESSIONS_SECRETS_DIR": str(secrets),
        "PGWATCH_SESSIONS_INTERVAL": "11",
        "PGWATCH_SESSIONS_TIMEOUT": "12",
        "PGWATCH_SESSIONS_TIMEOUT_FILE": written(tmp_path / "timeout", "22"),
        "PGWATCH_SESSIONS_HOLD_LIMIT_FILE": written(tmp_path / "hold_limit", "23\n"),
        "PGWATCH_SESSIONS_MAX_CLIENTS": "",
    }
    settings = load({"interval": "1", "timeout": None}, environ)
    assert (settings.interval, settings.timeout, settings.hold_limit) == (1, 12, 23)
    assert (settings.horizon, settings.growth_window, settings.max_clients) == (34, 45, 100)


def test_options_name_config_file_and_secrets_directory_before_the_environment(tmp_path: Path) -> None:
    """`--config` and `--secrets-dir` stand above their variables, which are then not even read."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    written(secrets / "PGWATCH_SESSIONS_DSN", f"postgresql://u:{SECRET}@db/x\n")
    written(secrets / "unrelated", "of somebody else")
    settings = load(
        {"config": written(tmp_path / "a.yaml", "interval: 3s"), "secrets_dir": str(secrets)},
        {"PGWATCH_SESSIONS_CONFIG": "/missing.yaml", "PGWATCH_SESSIONS_SECRETS_DIR": "/missing"},
    )
    assert settings.interval == 3
    assert dsn_of(settings) == f"postgresql://u:{SECRET}@db/x"


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the environment is the process's own."""
    for name in [name for name in os.environ if name.startswith("PGWATCH_SESSIONS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGWATCH_SESSIONS_INTERVAL", "500ms")
    assert load().interval == 0.5


def test_sections_are_reached_by_double_underscores() -> None:
    """A setting inside a section has its section's name and `__` before its own."""

    class Web(BaseModel):
        title: str

    class Sectioned(BaseModel):
        web: Web
        plain: str

    layer, _ = from_variables(
        {"PGWATCH_SESSIONS_WEB__TITLE": "x", "PGWATCH_SESSIONS_PLAIN": "y"}, known=dict(leaves(Sectioned))
    )
    assert layer.values == {"web": {"title": "x"}, "plain": "y"}
    assert layer.place(("web", "title")) == "environment variable PGWATCH_SESSIONS_WEB__TITLE"


# --- servers ---


@pytest.mark.parametrize(
    ("dsn", "environ", "name"),
    [
        (None, {}, "localhost:5432"),
        (None, {"PGHOST": "db", "PGPORT": "6432"}, "db:6432"),
        (None, {"PGHOST": "a,b", "PGPORT": "1,2"}, "a:1,b:2"),
        (None, {"PGHOST": "/run/postgresql"}, "/run/postgresql:5432"),
        ("postgresql://", {"PGHOST": "db"}, "db:5432"),
        ("postgresql://u:p@db:5433/x", {"PGHOST": "other", "PGPORT": "1"}, "db:5433"),
        ("postgresql://a,b:2/x", {"PGPORT": "7"}, "a:7,b:2"),
        ("postgresql://[::1]/x", {}, "[::1]:5432"),
        ("postgresql:///x?host=/sock&port=5", {}, "/sock:5"),
        ("postgresql://%2Fsock/x", {}, "/sock:5432"),
        ("postgresql:///x?host=a,b&port=5,6", {}, "a:5,b:6"),
        ("postgresql:///?service=orders", {}, "orders"),
    ],
)
def test_a_server_without_a_name_is_called_by_host_and_port(
    dsn: str | None, environ: dict[str, str], name: str
) -> None:
    """The name follows the driver's own reading of the URI and libpq's variables."""
    settings = load({"dsn": dsn}, environ)
    assert [server.name for server in settings.servers] == [name]
    assert dsn_of(settings) == dsn


def test_several_servers_stand_in_the_file(tmp_path: Path) -> None:
    """Each has its own name, DSN and password file; a relative YAML trap such as a bare `off` is read as meant."""
    password = written(tmp_path / "password", f"{SECRET}\n")
    text = f"""
servers:
  - dsn: postgresql://a/x
  - {{name: b, dsn: postgresql://b/x, password_file: {password}}}
statements: off
listen: "[::1]:9488"
"""
    settings = load({"config": written(tmp_path / "config.yaml", text)}, {})
    assert [(server.name, server.password_file) for server in settings.servers] == [
        ("a:5432", None),
        ("b", Path(password)),
    ]
    assert settings.statements == "off"
    assert settings.listen == Address(host="::1", port=9488)


def test_one_server_and_a_list_exclude_each_other(tmp_path: Path) -> None:
    """A DSN in the environment beside `servers` in the file is a mistake, and is placed."""
    config = written(tmp_path / "config.yaml", "servers: [{dsn: postgresql://a/x}]")
    (error,) = wrong({"config": config}, {"PGWATCH_SESSIONS_DSN": f"postgresql://u:{SECRET}@b/x"})
    assert error.startswith("environment variable PGWATCH_SESSIONS_DSN: stands beside `servers`")


def test_a_password_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """Only the path is kept, one trailing newline goes, and a password that vanished is an OSError with its path."""
    path = tmp_path / "password"
    written(path, " one \n\n")
    (server,) = load({}, {"PGWATCH_SESSIONS_PASSWORD_FILE": str(path)}).servers
    assert server.password_file == path
    assert read_secret(path) == " one \n"
    written(path, "two\r\n")
    assert read_secret(path) == "two"
    written(path, "\n")
    with pytest.raises(OSError, match="empty") as raised:
        read_secret(path)
    assert raised.value.filename == str(path)


# --- mistakes ---


def test_every_mistake_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    """Mistakes of all sources come together; none hides another, and none shows a secret."""
    config = tmp_path / "config.yaml"
    text = f"""interval: true
intervall: 5
servers:
  - dsn: host=db password={SECRET}
  - {{nmae: a, dsn: "postgresql://u:hun@{SECRET}@h/x", password_file: /missing}}
  - postgresql://u:{SECRET}@h/x
  - name: 5
  - name: a
  - {{name: a, passwrod: {SECRET}}}
log_level: trace
listen: ::1:3
record_max_bytes: 1.5
1: {SECRET}
postgresql://u:{SECRET}@h/x: 1
"""
    errors = wrong(
        {"config": written(config, text), "max_clients": "0"},
        {
            "PGWATCH_SESSIONS_TIMEOUT": "0",
            "PGWATCH_SESSIONS_HOLDLIMIT": SECRET,
            "PGWATCH_SESSIONS_HORIZON_FILE": "/missing",
            "PGWATCH_SESSIONS_SERVERS": SECRET,
            "PGWATCH_SESSIONS_PORT": "9488",
            "PGWATCH_SESSIONS_SECRETS_DIR": "/missing",
        },
    )
    expected = [
        ("--max-clients", "must be from 1 to 10000, not 0"),
        ("environment variable PGWATCH_SESSIONS_TIMEOUT", "must be from 100ms to 10m, not 0s"),
        ("environment variable PGWATCH_SESSIONS_HOLDLIMIT", "did you mean PGWATCH_SESSIONS_HOLD_LIMIT?"),
        ("environment variable PGWATCH_SESSIONS_HORIZON_FILE", "/missing: no such file"),
        ("environment variable PGWATCH_SESSIONS_SERVERS", "in the configuration file"),
        ("environment variable PGWATCH_SESSIONS_PORT", "is not a setting"),
        ("environment variable PGWATCH_SESSIONS_SECRETS_DIR", "/missing: no such file"),
        (f"{config}: line 1: interval", "must be a duration"),
        (f"{config}: line 2: intervall", "is not a setting; did you mean interval?"),
        (f"{config}: line 4: servers[0].dsn", "key=value"),
        (f"{config}: line 5: servers[1].nmae", "did you mean name?"),
        (f"{config}: line 5: servers[1].dsn", "percent-encode"),
        (f"{config}: line 5: servers[1].password_file", "/missing: no such file"),
        (f"{config}: line 6: servers[2]", "must be a mapping"),
        (f"{config}: line 7: servers[3].name", "must be text; put it in quotes"),
        (f"{config}: line 9: servers[5].name", "another server is called a as well"),
        (f"{config}: line 9: servers[5].passwrod", "is not a setting"),
        (f"{config}: line 10: log_level", "must be 'debug', 'info', 'warning' or 'error'"),
        (f"{config}: line 11: listen", "in brackets"),
        (f"{config}: line 12: record_max_bytes", "must be a size"),
        (f"{config}: line 14: …", "is not a setting"),
        (f"{config}", "a key that is not text"),
    ]
    for place, message in expected:
        assert [error for error in errors if error.startswith(f"{place}: ") and message in error], (place, errors)
    assert len(errors) == len(expected)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("interval: 5\n  timeout: 3", "line 2, column 10", "mapping values are not allowed"),
        (f"dsn: *{SECRET}", "line 1, column 6", "found undefined alias"),
        (f"dsn: !{SECRET} x", "line 1, column 6", "tag"),
        ("interval: 5\ninterval: 6", "line 2: interval", "a second time"),
        ("servers: &x [*x]", "", "in itself"),
        ("interval: 2026-02-31", "", "is not YAML"),
        ("interval: \x01", "", "is not YAML"),
        (SECRET, "", "must be a mapping"),
        ("servers:", "line 1: servers", "must be a list"),
        ("servers: []", "line 1: servers", "must not be empty"),
    ],
)
def test_a_broken_file_is_an_error_with_its_line(tmp_path: Path, text: str, place: str, message: str) -> None:
    """The parser's place is kept; what it quotes of the file is not."""
    config = written(tmp_path / "config.yaml", text)
    (error,) = wrong({"config": config})
    assert error.startswith(f"{config}: {place}")
    assert message in error


def test_a_missing_file_is_an_error_and_an_empty_one_is_not(tmp_path: Path) -> None:
    """The place of a missing file is where its name was given."""
    assert wrong({"config": "/missing.yaml"}) == ["--config: cannot use /missing.yaml: no such file or directory"]
    (error,) = wrong({}, {"PGWATCH_SESSIONS_CONFIG": str(tmp_path)})
    assert error.startswith(f"environment variable PGWATCH_SESSIONS_CONFIG: cannot use {tmp_path}: ")
    assert load({"config": written(tmp_path / "empty.yaml", "# nothing\n")}, {}) == load({}, {})


def test_a_secret_in_place_of_its_file_is_not_shown() -> None:
    """Somebody who gives the password itself as the file's name does not find it in the log."""
    assert wrong({"password_file": SECRET}) == [
        "--password-file: cannot use the file that is named here: no such file or directory"
    ]
    wrong({}, {"PGWATCH_SESSIONS_DSN_FILE": f"postgresql://u:{SECRET}@h/x"})


def test_a_secret_file_must_be_a_regular_file_with_text(tmp_path: Path) -> None:
    """Folders, pipes and bytes that are no text are refused, without waiting."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, reason in (("", "regular file"), ("pipe", "regular file"), ("bytes", "UTF-8")):
        (error,) = wrong({"password_file": str(tmp_path / name)})
        assert reason in error


def test_wrong_files_of_every_kind_are_placed(tmp_path: Path) -> None:
    """A misnamed secret, a configuration of other bytes, a folder that is a file, and a blank name are all told."""
    config, secret = tmp_path / "config.yaml", tmp_path / "pgwatch_sessions_dns"
    config.write_bytes(b"\xff")
    written(secret, SECRET)
    errors = wrong({"config": config, "secrets_dir": tmp_path, "record_dir": str(config), "name": " "})
    assert errors == [
        f"secret file {secret}: is not a setting; did you mean PGWATCH_SESSIONS_DSN?",
        f"{config}: is not UTF-8 text",
        "--name: must be 1 to 200 printable characters",
        f"--record-dir: {config} is not a directory",
    ]


def test_what_kubernetes_adds_for_a_service_is_let_be() -> None:
    """A service that is called pgwatch-sessions puts variables with our prefix into every container beside it."""
    load(
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


@pytest.mark.parametrize(
    "dsn",
    [
        f"host=db user=u password={SECRET}",
        f"mysql://u:{SECRET}@db/x",
        f"postgresql:u:{SECRET}@db/x",
        f"postgresql://u:{SECRET}@db@db/x",
        f"postgresql://u:1/{SECRET}@db/x",
        f"postgresql://u:1?{SECRET}@db/x",
        f"postgresql://u:1#{SECRET}@db/x",
        f"postgresql://u:{SECRET} @db/x",
        f"postgresql://u:{SECRET}@db:5432x/x",
        f"postgresql://u:{SECRET}@db:70000/x",
        f"postgresql://u:{SECRET}@db,,db2/x",
        f"postgresql://u:{SECRET}@[::1/x",
        f"postgresql://u:{SECRET}@::1/x",
        f"postgresql://u:{SECRET}@db/x?sslmode=no",
        f"postgresql://u:{SECRET}@db/x?channel_binding=require",
        f"postgresql://u:{SECRET}@db/x?nothing",
        f"postgresql://u:{SECRET}@/x?host=a&port=1,2",
        SECRET,
        "",
    ],
)
def test_a_dsn_that_the_driver_would_not_read_is_refused_without_showing_it(dsn: str) -> None:
    """The error names the setting and the reason; the name of the server, a label, is never made of such a DSN."""
    (error,) = wrong({"dsn": dsn})
    assert error.startswith("--dsn: ")
    assert masked_dsn(dsn) == "***"


@pytest.mark.parametrize("value", ["9488", "127.0.0.1", "127.0.0.1:", "h:65536", "::1:9488", "[x]:1", "a b:1", 9488])
def test_an_address_needs_host_and_port(value: object) -> None:
    """A listen address that is not host:port is refused."""
    (error,) = wrong({"listen": value})
    assert error.startswith("--listen: ")


# --- what is shown ---


passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(password=passwords, encode_all=st.booleans())
def test_masking_leaves_everything_but_the_passwords(password: str, encode_all: bool) -> None:
    """Whatever the password is, the masked DSN is the DSN with *** in its places."""
    encoded = "".join(f"%{byte:02x}" for byte in password.encode()) if encode_all else quote(password, safe="")
    dsn = "postgresql://u%40x:{0}@a:1,b:2/d%20b?sslpassword={0}&sslmode=require&pass%77ord={0}&password={0}"
    assert masked_dsn(dsn.format(encoded)) == dsn.format("***")


@given(password=st.text(string.ascii_letters + string.digits + string.punctuation + " \n", min_size=12))
def test_masking_never_lets_a_password_through_unencoded(password: str) -> None:
    """A password that was not percent-encoded is either hidden in whole, or the DSN is refused and nothing shown."""
    masked = masked_dsn(f"postgresql://user:{password}@db:5432/orders?sslmode=require")
    assert masked in {"***", "postgresql://user:***@db:5432/orders?sslmode=require"}


def test_secrets_stay_out_of_every_form_of_the_settings(tmp_path: Path) -> None:
    """Neither repr nor dump nor the effective configuration shows a password."""
    dsn = f"postgresql://u:{SECRET}@db/x?sslpassword={SECRET}"
    settings = load({"dsn": dsn, "password_file": written(tmp_path / "password", SECRET)}, {})
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {effective(settings)}"
    assert SECRET not in shown
    assert "postgresql://u:***@db/x?sslpassword=***" in effective(settings)


def test_settings_cannot_be_changed() -> None:
    """The result is a value."""
    settings = load({}, {})
    with pytest.raises(ValidationError):
        settings.interval = 1.0


def test_the_effective_configuration_loads_again(tmp_path: Path) -> None:
    """What `config` prints is a configuration file that says the same."""
    password = written(tmp_path / "password", SECRET)
    text = f"""
servers:
  - {{dsn: "postgresql://u@a,b/x?sslmode=require", password_file: {password}}}
  - {{name: "yes"}}
listen: ":0"
interval: 1.5
horizon: 100m
statements: off
record_dir: {tmp_path}
record_max_bytes: 1048577
"""
    settings = load({"config": written(tmp_path / "config.yaml", text)}, {"PGWATCH_SESSIONS_MAX_CLIENTS": "7"})
    again = load({"config": written(tmp_path / "effective.yaml", effective(settings))}, {})
    assert again == settings
    assert "interval: 1500ms" in effective(settings)


def test_the_example_holds_every_setting_with_its_default() -> None:
    """The example is complete, loads, and says what holds without it."""
    example: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert set(example) == set(Settings.model_fields)
    text = EXAMPLE.read_text(encoding="utf-8")
    for described in describe():
        assert f"\n{described.name}: " in text or f"\n# {described.name}: " in text
        if described.default is not None:
            assert str(example[described.name]) == described.default
    without, loaded = load({}, {}), load({"config": str(EXAMPLE)}, {})
    assert loaded.model_dump(exclude={"servers"}) == without.model_dump(exclude={"servers"})
    assert {described.description for described in describe()} != {""}


# --- quantities ---


@given(st.floats(min_value=0.001, max_value=1e9))
def test_a_duration_is_read_back_as_written(seconds: float) -> None:
    """Writing and reading changes no duration, however odd."""
    assert read_duration(duration_text(seconds)) == seconds


@given(st.integers(0, 10**12))
def test_whole_milliseconds_and_bytes_are_read_back_exactly(number: int) -> None:
    """What people write comes back as the same number."""
    assert read_duration(duration_text(number / 1000)) == number / 1000
    assert read_size(size_text(number)) == number


@pytest.mark.parametrize(
    ("text", "seconds", "again"),
    [
        ("10s", 10, "10s"),
        ("5m", 300, "5m"),
        ("1h", 3600, "1h"),
        ("700ms", 0.7, "700ms"),
        ("90", 90, "90s"),
        (0, 0, "0s"),
    ],
)
def test_durations_have_units(text: object, seconds: float, again: str) -> None:
    """A number without unit is seconds; the way back takes the largest unit that fits."""
    assert read_duration(text) == seconds
    assert duration_text(seconds) == again


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1d", "1 2", "1h30m", "\u0661s", "inf", "nan", float("inf"), -1, True, None, []]
)
def test_other_things_are_no_durations(text: object) -> None:
    """What is not a number with a known unit is refused."""
    with pytest.raises(ValueError, match="must be a duration"):
        read_duration(text)
