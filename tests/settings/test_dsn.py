import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.settings.dsn import masked_dsn
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
        ("postgresql:///?service=orders", {}, "orders"),
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
        (f"host=db user=u password={SECRET}", "key=value connection strings are not supported"),
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


passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(password=passwords, encode_all=st.booleans())
def test_masking_changes_only_the_passwords(password: str, encode_all: bool) -> None:
    """The masked DSN has *** instead of every password, whatever the password is."""
    encoded = "".join(f"%{byte:02x}" for byte in password.encode()) if encode_all else quote(password, safe="")
    dsn = "postgresql://u%40x:{0}@a:1,b:2/d%20b?sslpassword={0}&sslmode=require&pass%77ord={0}&password={0}"
    assert masked_dsn(dsn.format(encoded)) == dsn.format("***")


@given(password=st.text(string.ascii_letters + string.digits + string.punctuation + " \n", min_size=12))
def test_masking_shows_no_part_of_an_unencoded_password(password: str) -> None:
    """The password is masked as a whole, or the DSN is refused and nothing of it is shown."""
    masked = masked_dsn(f"postgresql://user:{password}@db:5432/orders?sslmode=require")
    assert masked in {"***", "postgresql://user:***@db:5432/orders?sslmode=require"}
