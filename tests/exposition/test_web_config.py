"""Mistakes in a web configuration: all at once, each with its place, and nothing secret."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pgwatch_sessions.exposition.web_config import load_web_config
from pgwatch_sessions.settings.errors import SettingsError
from tests.exposition.certificates import hashed, write_certificate, write_plain_config, write_web_config

SECRET = "hunter2"
DOCUMENT = Path(__file__).parents[2] / "docs" / "web.md"


def mistakes(file: Path) -> list[str]:
    """Return what is wrong, as a person reads it, without the file's name; none of it may hold the secret."""
    with pytest.raises(SettingsError) as raised:
        load_web_config(file)
    assert SECRET not in f"{raised.value!s} {raised.value!r} {raised.getrepr(showlocals=False, chain=True)}"
    return [str(error).removeprefix(str(file)).lstrip(": ") for error in raised.value.errors]


def test_every_mistake_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    """Mistakes of one section hide none of another."""
    file = tmp_path / "web.yml"
    file.write_text(f"""\
tls_server_config:
  cert_file: 5
  certfile: server.pem
  key: {SECRET}
  client_auth_type: RequireAnyClientCert
  min_version: TLS10
  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]
  prefer_server_cipher_suites: "yes"
http_server_config:
  http2: true
  headers: {{X-Frame-Options: allow, X-Secret: {SECRET}, X-XSS-Protection: "a\\nb"}}
basic_auth_users:
  prometheus: {SECRET}
  dear: {hashed(SECRET).replace("$04$", "$14$")}
  "a:b": {hashed(SECRET)}
  5: {hashed(SECRET)}
rate_limit: {{burst: 5}}
tls: {SECRET}
""")
    found = mistakes(file)
    expected = [
        ("line 2: tls_server_config.cert_file", "must be text"),
        ("line 1: tls_server_config", "key_file is missing"),
        ("line 3: tls_server_config.certfile", "did you mean cert_file?"),
        ("line 4: tls_server_config.key", "name it as key_file"),
        ("line 5: tls_server_config.client_auth_type", "write RequireAndVerifyClientCert"),
        ("line 6: tls_server_config.min_version", "write TLS12 or TLS13"),
        ("line 7: tls_server_config.cipher_suites[0]", "must be one of TLS_"),
        ("line 8: tls_server_config.prefer_server_cipher_suites", "must be true or false"),
        ("line 10: http_server_config.http2", "write false"),
        ("line 11: http_server_config.headers.X-Frame-Options", "must be 'deny' or 'sameorigin'"),
        ("line 11: http_server_config.headers.X-Secret", "unknown setting"),
        ("line 11: http_server_config.headers.X-XSS-Protection", "one line"),
        ("line 13: basic_auth_users.prometheus", "is no bcrypt hash"),
        ("line 14: basic_auth_users.dear", "has a cost of 14; make the hash with one from 4 to 13"),
        ("line 15: basic_auth_users.…", "nobody can log in by"),
        ("line 12: basic_auth_users", "has a user whose name is not text; put it in quotes"),
        ("line 17: rate_limit", "remove it"),
        ("line 18: tls", "unknown setting"),
    ]
    for place, message in expected:
        assert [text for text in found if text.startswith(f"{place}: ") and message in text], (place, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            ["client_auth_type: VerifyClientCertIfGiven"],
            ["line 4: tls_server_config.client_auth_type: needs client_ca"],
        ),
        (["client_ca_file: ca.pem"], ["line 4: tls_server_config.client_ca_file: has no use; write client_auth_type"]),
        (["client_allowed_sans: [a]"], ["line 4: tls_server_config.client_allowed_sans: needs client_auth_type"]),
        (["client_allowed_sans: []"], ["line 4: tls_server_config.client_allowed_sans: is empty"]),
        (["min_version: TLS13", "max_version: TLS12"], ["line 4: tls_server_config.min_version: is above max_version"]),
        (["cipher_suites: [TLS_AES_128_GCM_SHA256]"], ["line 4: tls_server_config.cipher_suites: has no suite of TLS"]),
        (["curve_preferences: [X25519, CurveP256]"], ["line 4: tls_server_config.curve_preferences: has several"]),
        (["curve_preferences: [P256]"], ["line 4: tls_server_config.curve_preferences[0]: must be one of CurveP256"]),
        (["client_auth_type: always"], ["line 4: tls_server_config.client_auth_type: must be one of NoClientCert"]),
        (["cert_file: x"], ["line 4: tls_server_config.cert_file: duplicate key, also on line 2", "cannot use"]),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path: Path, lines: list[str], found: list[str]) -> None:
    """What would be half of what was asked for is not taken for all of it."""
    told = mistakes(write_web_config(tmp_path, *lines))
    assert len(told) == len(found)
    assert all(expected in text for expected, text in zip(found, told, strict=True)), told


def test_files_that_tls_cannot_use_are_told_with_path_and_reason(tmp_path: Path) -> None:
    """Missing, no PEM, another's key, encrypted, a folder; all that can be told at once is."""
    file = write_web_config(tmp_path, "client_auth_type: RequireAndVerifyClientCert", "client_ca_file: nowhere.pem")
    write_certificate(tmp_path, "other")
    server, key = tmp_path / "server.pem", tmp_path / "server.key"
    own = key.read_text()
    server.unlink()
    key.write_text(f"{SECRET}\n")
    no_key = "it holds no private key in PEM (-----BEGIN ... PRIVATE KEY-----)"
    assert mistakes(file) == [
        f"line 2: tls_server_config.cert_file: cannot use {server}: no such file or directory",
        f"line 3: tls_server_config.key_file: cannot use {key}: {no_key}",
        f"line 5: tls_server_config.client_ca_file: cannot use {tmp_path}/nowhere.pem: no such file or directory",
    ]
    (tmp_path / "nowhere.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{SECRET}\n-----END CERTIFICATE-----\n")
    server.mkdir()
    key.write_text(f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{SECRET}\n")
    told = mistakes(file)
    assert f"cannot use {server}: is not a regular file" in told[0]
    assert f"openssl pkey -in {key} -out FILE" in told[1]
    server.rmdir()
    server.write_bytes((tmp_path / "other.pem").read_bytes())
    key.write_text(own)
    assert mistakes(file) == [
        f"line 3: tls_server_config.key_file: the key in {key} does not fit the certificate in {server}"
    ]
    server.write_text(f"-----BEGIN CERTIFICATE-----\n{SECRET}\n-----END CERTIFICATE-----\n")
    assert f"cert_file: cannot use {server} with {key}: OpenSSL" in mistakes(file)[0]
    write_certificate(tmp_path, "server")
    assert f"client_ca_file: cannot use {tmp_path}/nowhere.pem: OpenSSL" in mistakes(file)[0]


@pytest.mark.parametrize("kind", ["pem", "key"])
def test_nobody_is_asked_for_a_password(tmp_path: Path, kind: str) -> None:
    """OpenSSL would ask the terminal, and the daemon would wait for it."""
    file = write_web_config(tmp_path)
    encrypted = tmp_path / f"server.{kind}"
    marks = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF\n\n"
    encrypted.write_text(re.sub(r"(-----BEGIN .*\n)", rf"\g<1>{marks}", encrypted.read_text()))
    (told,) = mistakes(file)
    assert ("OpenSSL does not understand" if kind == "pem" else "openssl pkey") in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; give it tls_server_config or basic_auth_users"),
        ("# nothing\n", "is empty"),
        ("tls_server_config:\n", "is empty; fill it or remove it"),
        ("basic_auth_users: {}\n", "is empty; fill it or remove it"),
        (f"- {SECRET}\n", "must be a mapping"),
        (f"{SECRET}: [", "invalid YAML"),
        (f"basic_auth_users: [{SECRET}]\n", "must be a mapping"),
        (f"http_server_config: {SECRET}\n", "must be a mapping"),
    ],
)
def test_what_says_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """An empty file or section is more often an accident than a wish for open doors."""
    file = tmp_path / "web.yml"
    file.write_text(text)
    (told,) = mistakes(file)
    assert message in told


@pytest.mark.parametrize("kind", ["2a", "2b", "2x", "2y"])
def test_hashes_of_all_tools_are_read(tmp_path: Path, kind: str) -> None:
    """Apache's htpasswd writes $2y$, Python and Go write $2b$ and $2a$."""
    users = {"prometheus": hashed(SECRET).replace("$2b$", f"${kind}$")}
    assert load_web_config(write_plain_config(tmp_path, users=users)).users == users


def test_a_salt_that_bcrypt_cannot_read_is_refused(tmp_path: Path) -> None:
    """Its last letter has four values; a hash with another looks like one, and fails at each login."""
    good = hashed(SECRET)
    for letter in "./AOZeuz9":
        file = write_plain_config(tmp_path, users={"prometheus": good[:28] + letter + good[29:]})
        if letter in ".Oeu":
            load_web_config(file)
        else:
            assert "is no bcrypt hash" in mistakes(file)[0]


def examples() -> list[str]:
    """Return the YAML that the documentation shows."""
    return re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", [text for text in examples() if text.startswith("tls_server_config")])
def test_the_documentation_shows_what_works(tmp_path: Path, text: str) -> None:
    """Its examples load, with files of these names beside them."""
    write_certificate(tmp_path, "server")
    (tmp_path / "ca.pem").rename(tmp_path / "clients-ca.pem")
    file = tmp_path / "web.yml"
    file.write_text(text.replace("$2y$10$...", hashed(SECRET)))
    assert load_web_config(file).tls is not None


def test_prometheus_takes_what_the_documentation_shows(tmp_path: Path) -> None:
    """The scrape configuration is one to promtool."""
    if not shutil.which("promtool"):
        pytest.skip("promtool is missing; on Debian and Ubuntu: apt install prometheus")
    write_certificate(tmp_path, "prometheus")
    (tmp_path / "password").write_text(SECRET)
    (text,) = (text for text in examples() if text.startswith("scrape_configs"))
    file = tmp_path / "prometheus.yml"
    file.write_text(text)
    checked = subprocess.run(["promtool", "check", "config", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
