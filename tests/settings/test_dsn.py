import inspect
import os
import string
from urllib.parse import quote

import pytest
from asyncpg import connect_utils
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.settings.dsn import masked_dsn, parse_dsn, write_dsn
from pgwatch_sessions.settings.key_values import read_key_values, write_key_values
from tests.support.given_settings import SECRET, dsn_of, errors_of, loaded


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
        ("host=db port=6432 user=u", {}, "db:6432"),
        ("host=/sock,::1 dbname=x", {}, "/sock:5432,[::1]:5432"),
        ("user=u", {"PGHOST": "db"}, "db:5432"),
    ],
)
def test_a_server_without_a_name_is_named_by_host_and_port(dsn: str | None, environ: dict[str, str], name: str) -> None:
    """The name follows the driver's own reading of the URI and of libpq's variables."""
    settings = loaded({"dsn": dsn}, environ)
    assert [server.name for server in settings.servers] == [name]
    assert dsn_of(settings) == dsn


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        (f"host=db user=u password='{SECRET}", "invalid key=value pairs"),
        (f"host=db user=u password={SECRET} {SECRET}", "invalid key=value pairs"),
        (f"host=db user=u pasword={SECRET}", "unknown parameter pasword; did you mean password?"),
        (f"host=db password=a {SECRET}=b", "has an unknown parameter; supported are host, port, user, password"),
        (f"host=db:5432 password={SECRET}", "invalid host or port"),
        (f"host=a,b port=1,2,3 password={SECRET}", "numbers of hosts and ports differ"),
        (f"postgresql+asyncpg://u:{SECRET}@db/x", "names a driver of SQLAlchemy; write postgresql://"),
        (f"mysql://u:{SECRET}@db/x", "not a connection URI"),
        (f"postgresql:u:{SECRET}@db/x", "not a connection URI"),
        (f"postgresql://u:{SECRET}@[::1/x", "not a connection URI"),
        (SECRET, "not a connection URI"),
        ("", "not a connection URI"),
        (f"postgresql://u:{SECRET}@db@db/x", "ambiguous; percent-encode @ (%40)"),
        (f"postgresql://u:1/{SECRET}@db/x", "ambiguous; percent-encode @ (%40)"),
        (f"postgresql://u:1?{SECRET}@db/x", "ambiguous; percent-encode @ (%40)"),
        (f"postgresql://u:1#{SECRET}@db/x", "ambiguous; percent-encode @ (%40)"),
        (f"postgresql://u:{SECRET} @db/x", "contains white space; percent-encode it"),
        (f"postgresql://u:{SECRET}@db:5432x/x", "invalid host or port"),
        (f"postgresql://u:{SECRET}@db:70000/x", "invalid host or port"),
        (f"postgresql://u:{SECRET}@db,,db2/x", "invalid host or port"),
        (f"postgresql://u:{SECRET}@::1/x", "invalid host or port"),
        (f"postgresql://u:{SECRET}@db/x?sslmode=no", "invalid sslmode; write one of disable, allow, prefer"),
        (f"postgresql://u:{SECRET}@db/x?channel_binding=require", "parameter channel_binding is not supported"),
        (
            f"postgresql://u:{SECRET}@db/x?target_session_attrs=master",
            "invalid target_session_attrs; write one of any, ",
        ),
        (f"postgresql://u:{SECRET}@db/x?require_auth=scram", "invalid require_auth; write some of password, md5, gss"),
        (f"postgresql://u:{SECRET}@db/x?require_auth=md5,!none", "invalid require_auth; write some of password, md5"),
        (f"postgresql://u:{SECRET}@db/x?nothing", "invalid parameters after ?"),
        (f"postgresql://u:{SECRET}@/x?host=a&port=1,2", "numbers of hosts and ports differ"),
        ("postgresql://db/x?sslmode=verify-ca&sslrootcert=/no.pem", "sslrootcert: cannot use /no.pem: no such file"),
    ],
)
def test_a_dsn_that_the_driver_would_not_accept_is_refused(dsn: str, message: str) -> None:
    """The error has the setting and the reason, and nothing of the DSN. Nothing of it becomes the server's name."""
    (error,) = errors_of({"dsn": dsn})
    assert error.startswith(f"--dsn: {message}") or message in error.removeprefix("--dsn: the ")
    assert masked_dsn(dsn) in {"***", dsn}


@pytest.mark.parametrize(
    ("dsn", "parameters"),
    [
        ("host=db user=x dbname=y", {"host": "db", "user": "x", "dbname": "y"}),
        (r"  host = db  password='a b\'c\\d' ", {"host": "db", "password": r"a b'c\d"}),
        (r"password=a\ b user=''", {"password": "a b"}),
        ("host=db connect_timeout=10 application_name=x keepalives=1 channel_binding=prefer", {"host": "db"}),
        ("postgresql://u%40x:p+q@a,b:2/d%20b?sslmode=require&options=-c%20x",
         {"host": "a,b", "port": ",2", "user": "u@x", "password": "p+q", "dbname": "d b", "sslmode": "require",
          "options": "-c x"}),
        ("postgresql://[::1]:5/x?user=u", {"host": "::1", "port": "5", "user": "u", "dbname": "x"}),
        ("postgresql:///?host=/run/pg&database=d", {"host": "/run/pg", "dbname": "d"}),
    ],
)  # fmt: skip
def test_uris_and_key_values_are_read_as_libpq_reads_them(dsn: str, parameters: dict[str, str]) -> None:
    """Quoting, percent-encoding, lists of hosts; what the daemon decides itself, such as time-outs, has no effect."""
    assert parse_dsn(dsn) == parameters


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db port=6432 user=u@x password='p w/:#?&+%' dbname='d b'",
        "host=a,b port=,2 user=u",
        "host=/run/pg,b port=,2 password=p",
        "host=::1 dbname=x",
        "host=::1,db port=5 user=u",
        "user=u password=p sslmode=require sslrootcert='/c a/x.pem'",
    ],
)
def test_the_driver_reads_what_we_write(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URI for the driver has the same hosts, ports, user, password and database."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    wanted = parse_dsn(dsn)
    read_by_driver = vars(connect_utils)["_parse_connect_dsn_and_args"]  # private; connect() itself needs a server
    arguments = dict.fromkeys(inspect.signature(read_by_driver).parameters)
    text = write_dsn({key: value for key, value in wanted.items() if not key.startswith("ssl")})
    addresses, read = read_by_driver(**{**arguments, "dsn": text})
    hosts = wanted.get("host", "").split(",")
    ports = wanted.get("port", "5432").split(",")
    ports = ports if len(ports) == len(hosts) else ports * len(hosts)
    if hosts != [""]:
        assert addresses == [
            f"{host}/.s.PGSQL.{port or 5432}" if host.startswith("/") else (host, int(port or 5432))
            for host, port in zip(hosts, ports, strict=True)
        ]
    for keyword, value in (("user", read.user), ("password", read.password), ("dbname", read.database)):
        assert wanted.get(keyword) in {value, None}
    assert {**parse_dsn(write_dsn(wanted)), "port": ""} == {**wanted, "port": ""}


@given(pairs=st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=9)))
def test_key_values_are_read_as_they_were_written(pairs: dict[str, str]) -> None:
    """Whatever the values are."""
    assert dict(read_key_values(write_key_values(pairs))) == pairs


passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(password=passwords, encode_all=st.booleans())
def test_masking_changes_only_the_passwords(password: str, encode_all: bool) -> None:
    """The masked DSN has *** instead of every password, whatever the password is."""
    encoded = "".join(f"%{byte:02x}" for byte in password.encode()) if encode_all else quote(password, safe="")
    dsn = "postgresql://u%40x:{0}@a:1,b:2/d%20b?sslpassword={0}&sslmode=require&pass%77ord={0}&password={0}"
    assert masked_dsn(dsn.format(encoded)) == dsn.format("***")


@pytest.mark.parametrize(
    ("dsn", "masked"),
    [
        ("postgresql://u@db/x?options=-c%20app.token%3D{0}", "postgresql://u@db/x?options=***"),
        ("postgresql://u@db/x?opti%6fns={0}&sslmode=require", "postgresql://u@db/x?opti%6fns=***&sslmode=require"),
        ("postgresql://u@db/x?channel_binding=prefer", "postgresql://u@db/x?channel_binding=***"),
        ("host=db options='-c app.token={0}' connect_timeout=5", "host=db options=*** connect_timeout=5"),
        ("postgresql://u@db?application_name=x&passfile=/p", "postgresql://u@db?application_name=x&passfile=/p"),
    ],
)
def test_only_parameters_that_are_known_to_be_harmless_are_shown(dsn: str, masked: str) -> None:
    """A token may be in `options`, and in whatever a later version of libpq knows."""
    assert masked_dsn(dsn.format(SECRET)) == masked


@given(password=st.text(string.ascii_letters + string.digits + string.punctuation + " \n", min_size=12))
def test_masking_shows_no_part_of_an_unencoded_password(password: str) -> None:
    """The password is masked as a whole, or the DSN is refused and nothing of it is shown."""
    masked = masked_dsn(f"postgresql://user:{password}@db:5432/orders?sslmode=require")
    assert masked in {"***", "postgresql://user:***@db:5432/orders?sslmode=require"}
