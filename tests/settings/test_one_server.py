from pathlib import Path

import pytest

from pgwatch_sessions.commands.wiring import targets_of
from pgwatch_sessions.settings.loading import load_with_places
from tests.support.given_settings import SECRET, dsn_of, errors_of, loaded, written


@pytest.mark.parametrize(
    ("options", "environ", "dsn"),
    [
        ({"host": "db", "username": "u", "port": "6432", "dbname": "x"}, {}, "postgresql://u@db:6432/x"),
        ({"host": "/run/pg"}, {}, "postgresql://?host=/run/pg"),
        ({"host": "other", "dsn": f"postgresql://u:{SECRET}@db:6432/x"}, {}, f"postgresql://u:{SECRET}@other:6432/x"),
        ({"host": "c", "dsn": "postgresql://u@a:1,b:2/x"}, {}, "postgresql://u@c/x"),
        ({"username": "w", "dsn": f"host=db user=u password={SECRET}"}, {}, "postgresql://w@db"),
        ({"dbname": "postgresql://u@db/x"}, {"PGWATCH_SESSIONS_DSN": "postgresql://other"}, "postgresql://u@db/x"),
        ({"dbname": "host=db user=u", "port": "7"}, {}, "postgresql://u@db:7"),
        ({"dbname": "y"}, {"PGWATCH_SESSIONS_DSN": "host=db dbname=x"}, "postgresql://db/y"),
        ({"username": "u"}, {"PGHOST": "db"}, "postgresql://u@"),
        ({"username": "u", "dbname": "d"}, {"DATABASE_URL": f"postgres://app:{SECRET}@db/x"}, "postgresql://u@db/d"),
        ({}, {"DATABASE_URL": f"postgres://app:{SECRET}@db/x"}, f"postgres://app:{SECRET}@db/x"),
        ({}, {"DATA_SOURCE_NAME": "host=db user=u"}, "host=db user=u"),
        ({}, {"DATABASE_URL": "mysql://u@db/x", "DATA_SOURCE_NAME": "host=db"}, "host=db"),
        ({}, {"DATABASE_URL": "postgresql://db", "PGHOST": "other"}, None),
        ({"host": "db"}, {"DATABASE_URL": "postgresql://other"}, "postgresql://db"),
        ({"dsn": "postgresql://db"}, {"DATABASE_URL": "postgresql://other"}, "postgresql://db"),
    ],
)
def test_the_one_server_comes_from_options_dsn_and_variables(
    options: dict[str, str], environ: dict[str, str], dsn: str | None
) -> None:
    """Options replace parts of the DSN; another role's password is left out. Other programs' variables are last."""
    assert dsn_of(loaded(options, environ)) == dsn


@pytest.mark.parametrize(
    ("url", "dsn", "without"),
    [
        (
            "postgresql+asyncpg://a:b@h/x?ssl=true&pool_size=3",
            "postgresql://a:b@h/x?sslmode=require",
            "+asyncpg, pool_size",
        ),
        ("postgres://a:b@h/x?sslmode=require", "postgres://a:b@h/x?sslmode=require", ""),
        ("postgresql://a:b@h/x?schema=public", "postgresql://a:b@h/x", "schema"),
    ],
)
def test_a_variable_of_another_program_is_announced(
    url: str, dsn: str, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says which variable, and what of it means nothing to PostgreSQL."""
    for name in ("PGHOST", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", url.replace(":b@", f":{SECRET}@"))
    given = load_with_places()
    assert dsn_of(given.settings) == dsn.replace(":b@", f":{SECRET}@")
    (notice,) = given.notices
    assert notice.startswith(f"using the server that DATABASE_URL names{', without ' + without if without else ''}; ")
    assert SECRET not in notice


@pytest.mark.parametrize(
    ("options", "environ", "error"),
    [
        ({"dbname": "host=db", "dsn": "postgresql://db"}, {}, "--dbname: conflicts with --dsn"),
        ({"dbname": f"host=db password={SECRET}", "host": "x"}, {}, "--host: conflicts with host in the connection"),
        ({"port": "abc"}, {}, "--port: must be a port number from 1 to 65535"),
        ({"host": "db,"}, {}, "--host: invalid host or port"),
        ({"host": "db", "dsn": f"postgresql:{SECRET}"}, {}, "--dsn: not a connection URI"),
        ({}, {"DATABASE_URL": f"postgresql://u:{SECRET}@d b/x"}, "environment variable DATABASE_URL: contains white"),
        (
            {},
            {"DATABASE_URL": "postgresql://db?channel_binding=require"},
            "environment variable DATABASE_URL: the parameter channel_binding is not supported",
        ),
        (
            {},
            {"DATA_SOURCE_NAME": f"postgresql://u:{SECRET}@a,postgresql://b"},
            "environment variable DATA_SOURCE_NAME: names several servers; list them as `servers`",
        ),
    ],
)
def test_what_contradicts_itself_is_an_error(options: dict[str, str], environ: dict[str, str], error: str) -> None:
    """The error names the option or the variable, and shows no secret."""
    (found,) = errors_of(options, environ)
    assert found.startswith(error)


def test_options_and_a_list_of_servers_conflict(tmp_path: Path) -> None:
    """An option cannot say which of the servers it means."""
    config = written(tmp_path / "c.yaml", "servers:\n- dsn: postgresql://a\n")
    assert errors_of({"config": config, "host": "db", "username": "u"}) == [
        f"--{name}: conflicts with `servers`; give the server by options, or use servers"
        for name in ("host", "username")
    ]


def test_a_service_gives_what_the_dsn_does_not(tmp_path: Path) -> None:
    """As in libpq, its parameters come before libpq's variables. PGSERVICE and the DSN can name it."""
    file = written(
        tmp_path / "services",
        f"# all\n[other]\nhost=x\n\n[orders]\n  host=db\nport=6432\nuser=u\npassword={SECRET}\nkeepalives=1\n[last]\n",
    )
    environ = {"PGSERVICEFILE": file, "PGHOST": "elsewhere"}
    for options, more, wanted in (
        ({}, {"PGSERVICE": "orders"}, f"postgresql://u:{SECRET}@db:6432"),
        ({"dsn": "service=orders user=w"}, {"PGSERVICE": "other"}, f"postgresql://w:{SECRET}@db:6432"),
        ({"dsn": "postgresql:///x?service=orders"}, {}, f"postgresql://u:{SECRET}@db:6432/x"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (environ | more).items():
                patch.setenv(name, value)
            (server,) = loaded(options, environ | more).servers
            assert (server.route.dsn, server.name) == (wanted, "orders")


@pytest.mark.parametrize(
    ("dsn", "environ", "hosts", "role", "logins"),
    [
        (None, {}, (), "any", None),
        ("postgresql://u@a,b:2/x", {}, (("a", 5432), ("b", 2)), "any", None),
        ("host=a,b port=7", {"PGHOST": "c"}, (("a", 7), ("b", 7)), "any", None),
        ("postgresql:///x?host=/run/pg", {"PGPORT": "6"}, (("/run/pg", 6),), "any", None),
        ("user=u", {"PGHOST": "a,b", "PGPORT": "1,2"}, (("a", 1), ("b", 2)), "any", None),
        ("host=a target_session_attrs=primary", {"PGTARGETSESSIONATTRS": "standby"}, (("a", 5432),), "primary", None),
        ("host=a", {"PGTARGETSESSIONATTRS": "standby"}, (("a", 5432),), "standby", None),
        ("host=a require_auth=scram-sha-256,gss", {}, (("a", 5432),), "any", {"scram-sha-256", "gss"}),
        ("host=a", {"PGREQUIREAUTH": "!password,!md5,!none"}, (("a", 5432),), "any", {"scram-sha-256", "gss", "sspi"}),
    ],
)
def test_hosts_role_and_logins_are_ours_to_decide(
    dsn: str | None, environ: dict[str, str], hosts: tuple[object, ...], role: str, logins: set[str] | None
) -> None:
    """They come from the DSN, then from libpq's variables. The driver is told neither role nor logins."""
    with pytest.MonkeyPatch.context() as patch:
        (server,) = loaded({"dsn": dsn} if dsn else {}, environ).servers
        for name, value in environ.items():
            patch.setenv(name, value)
        route = server.route
    assert (route.hosts, route.role, route.logins) == (hosts, role, logins)
    assert "target_session_attrs" not in (route.dsn or "")
    assert "require_auth" not in (route.dsn or "")


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"PGTARGETSESSIONATTRS": "master"}, "environment variable PGTARGETSESSIONATTRS: invalid target_session_attrs"),
        ({"PGREQUIREAUTH": "scram"}, "environment variable PGREQUIREAUTH: invalid require_auth"),
        ({"PGHOST": "a,b", "PGPORT": "1,2,3"}, "environment variable PGHOST, PGPORT: numbers of hosts and ports"),
        ({"PGPORT": "many"}, "environment variable PGPORT: invalid host or port"),
    ],
)
def test_a_variable_of_libpq_that_makes_no_sense_is_named(environ: dict[str, str], error: str) -> None:
    """At the start, not at each poll."""
    (found,) = errors_of({}, environ)
    assert found.startswith(error)


@pytest.mark.parametrize(("text", "allowed"), [("yes", "yes"), ("true", "yes"), ("'no'", "no"), ("false", "no")])
def test_clear_text_is_allowed_for_each_server(tmp_path: Path, text: str, allowed: str) -> None:
    """YAML reads a bare yes as true."""
    servers = f"servers:\n- {{dsn: 'host=a', allow_cleartext_password: {text}}}\n- {{dsn: 'host=b'}}\n"
    settings = loaded({"config": written(tmp_path / "config.yaml", servers)})
    assert [server.allow_cleartext_password for server in settings.servers] == [allowed, "no"]
    assert errors_of({"allow_cleartext_password": "perhaps"}) == ["--allow-cleartext-password: must be 'no' or 'yes'"]


def test_the_user_file_comes_before_the_systems(tmp_path: Path) -> None:
    """~/.pg_service.conf first, and pg_service.conf in PGSYSCONFDIR for what it does not have."""
    written(tmp_path / ".pg_service.conf", "[mine]\nhost=a\n")
    written(tmp_path / "pg_service.conf", "[mine]\nhost=b\n[shared]\nhost=c\n")
    for service, host in (("mine", "a"), ("shared", "c")):
        with pytest.MonkeyPatch.context() as patch:
            environ = {"HOME": str(tmp_path), "PGSYSCONFDIR": str(tmp_path), "PGSERVICE": service}
            settings = loaded({}, environ)
            for name, value in environ.items():
                patch.setenv(name, value)
            assert settings.servers[0].route.dsn == f"postgresql://{host}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[x]\nhost=db\n", "environment variable PGSERVICE: no section [orders] in {file}; add it, or name another"),
        ("[orders]\nhost db\n", "service file {file} line 2: section [orders]: not a parameter; write key=value"),
        (
            f"[orders]\npasword={SECRET}\n",
            "service file {file} line 2: section [orders]: unknown parameter pasword; ",
        ),
        ("[orders]\nservice=x\n", "service file {file} line 2: section [orders]: a service cannot name another one"),
        (
            "[orders]\nhost=a,b\nport=1,2,3\n",
            "service file {file}: section [orders]: numbers of hosts and ports",
        ),
    ],
)
def test_errors_of_a_service_name_file_and_section(text: str, error: str, tmp_path: Path) -> None:
    """Libpq ignores none of them either."""
    file = written(tmp_path / "services", text)
    (found,) = errors_of({}, {"PGSERVICE": "orders", "PGSERVICEFILE": file})
    assert found.startswith(error.format(file=file))
    (missing,) = errors_of({}, {"PGSERVICE": "orders", "PGSERVICEFILE": "/missing"})
    assert missing == "service file: cannot use /missing: no such file or directory"


def test_the_same_settings_name_the_same_target() -> None:
    """So a reload keeps the connection. Whether there is a password is looked up at each refusal."""
    options = {"dsn": "postgresql://u@db/x"}
    assert targets_of(loaded(options)) == targets_of(loaded(options))
