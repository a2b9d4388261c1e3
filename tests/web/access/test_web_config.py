"""Mistakes in a web configuration: all at once, each with its line, and without secrets."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pgwatch_sessions.settings.errors import SettingsError
from pgwatch_sessions.web.access.web_config import load_web_config
from tests.support.certificates import hashed, write_certificate, write_plain_config, write_web_config

SECRET = "hunter2"
DOCUMENT = Path(__file__).parents[3] / "docs" / "web.md"


def mistakes(file: Path) -> list[str]:
    """Return the messages that users read, without the file's name; none may show the secret."""
    with pytest.raises(SettingsError) as raised:
        load_web_config(file)
    assert SECRET not in f"{raised.value!s} {raised.value!r} {raised.getrepr(showlocals=False, chain=True)}"
    return [str(error).removeprefix(str(file)).lstrip(": ") for error in raised.value.errors]


def test_every_mistake_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    """In all sections. What exporter-toolkit knows and this program does not is named, with what to do instead."""
    file = tmp_path / "web.yml"
    file.write_text(f"""\
tls_server_config:
  cert_file: 5
  certfile: server.pem
  key: {SECRET}
  client_auth_type: RequireAnyClientCert
  client_ca_file: ca.pem
  min_version: TLS10
  max_version: TLS13
  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]
  curve_preferences: [X25519]
  prefer_server_cipher_suites: true
  client_allowed_sans: [{SECRET}]
  min_version: [{SECRET}]
http_server_config:
  headers: {{X-Secret: {SECRET}}}
basic_auth_users:
  prometheus: {SECRET}
  slow: {hashed(SECRET).replace("$04$", "$14$")}
  "a:b": {hashed(SECRET)}
  5: {hashed(SECRET)}
  list: [{SECRET}]
rate_limit: {{burst: 5}}
tls: {SECRET}
""")
    proxy = "is not supported; put a reverse proxy such as nginx in front"
    expected = [
        ("line 2: tls_server_config.cert_file", "must be the path of a file"),
        ("line 1: tls_server_config", "key_file is missing"),
        ("line 3: tls_server_config.certfile", "did you mean cert_file?"),
        ("line 4: tls_server_config.key", "is not supported; write it to a file and name the file in key_file"),
        ("line 5: tls_server_config.client_auth_type", f"RequireAnyClientCert {proxy}"),
        ("line 8: tls_server_config.max_version", proxy),
        ("line 9: tls_server_config.cipher_suites", proxy),
        ("line 10: tls_server_config.curve_preferences", proxy),
        ("line 11: tls_server_config.prefer_server_cipher_suites", proxy),
        ("line 12: tls_server_config.client_allowed_sans", proxy),
        ("line 13: tls_server_config.min_version", ""),  # it is there twice
        ("line 13: tls_server_config.min_version", "must be one of TLS12, TLS13"),
        ("line 14: http_server_config", proxy),
        ("line 17: basic_auth_users.prometheus", "is not a bcrypt hash"),
        ("line 18: basic_auth_users.slow", "has a cost of 14; make a hash with a cost from 4 to 13"),
        ("line 19: basic_auth_users.…", "is not a user name"),
        ("line 20: basic_auth_users.5", "is not a user name"),
        ("line 21: basic_auth_users.list", "is not a bcrypt hash"),
        ("line 22: rate_limit", proxy),
        ("line 23: tls", "setting"),
    ]
    found = mistakes(file)
    for place, message in expected:
        assert [text for text in found if text.startswith(f"{place}: ") and message in text], (place, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("client_auth_type: VerifyClientCertIfGiven", "tls_server_config.client_auth_type: needs client_ca_file"),
        ("client_ca_file: ca.pem", "tls_server_config.client_ca_file: has no effect; add client_auth_type"),
        ("client_auth_type: always", "tls_server_config.client_auth_type: must be one of NoClientCert, VerifyClient"),
        ("min_version: TLS11", "tls_server_config.min_version: must be one of TLS12, TLS13"),
        ("cert_file: x", "tls_server_config.cert_file: "),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, line: str, found: str) -> None:
    """The daemon does not start with less protection than somebody thinks it has."""
    (message,) = mistakes(write_web_config(tmp_path, line))
    assert message.startswith(f"line 4: {found}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; give it tls_server_config or basic_auth_users"),
        ("# nothing\n", "is empty; give it tls_server_config or basic_auth_users"),
        ("tls_server_config:\n", "line 1: tls_server_config: must be a mapping with at least one entry"),
        ("basic_auth_users: {}\n", "line 1: basic_auth_users: must be a mapping with at least one entry"),
        (f"basic_auth_users: [{SECRET}]\n", "line 1: basic_auth_users: must be a mapping"),
        (f"- {SECRET}\n", "must be a mapping"),
        (f"{SECRET}: [", "YAML"),
    ],
)
def test_an_empty_file_or_section_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """It is more often an accident than a wish to let everybody in."""
    file = tmp_path / "web.yml"
    file.write_text(text)
    (found,) = mistakes(file)
    assert message in found


def test_files_that_tls_cannot_use_are_named_with_the_reason(tmp_path: Path) -> None:
    """Missing, not PEM, a folder, encrypted, the key of another certificate, damaged."""
    file = write_web_config(tmp_path, "client_auth_type: RequireAndVerifyClientCert", "client_ca_file: nowhere.pem")
    write_certificate(tmp_path, "other")
    server, key, authority = (tmp_path / name for name in ("server.pem", "server.key", "nowhere.pem"))
    good = server.read_bytes(), key.read_text()
    damaged = f"-----BEGIN CERTIFICATE-----\n{SECRET}\n-----END CERTIFICATE-----\n"
    server.unlink()
    key.write_text(f"{SECRET}\n")
    assert mistakes(file) == [
        f"line 2: tls_server_config.cert_file: cannot use {server}: no such file or directory",
        f"line 3: tls_server_config.key_file: cannot use {key}: it has no PRIVATE KEY in PEM",
        f"line 5: tls_server_config.client_ca_file: cannot use {authority}: no such file or directory",
    ]
    authority.write_text(damaged)
    server.mkdir()
    key.write_text(good[1])
    assert f"line 2: tls_server_config.cert_file: cannot use {server}: not a regular file" in mistakes(file)
    server.rmdir()
    server.write_bytes((tmp_path / "other.pem").read_bytes())
    assert mistakes(file) == [
        f"line 3: tls_server_config.key_file: the key in {key} does not belong to the certificate in {server}"
    ]
    server.write_text(damaged)
    assert f"cert_file: cannot use {server} with {key}: OpenSSL" in mistakes(file)[0]
    server.write_bytes(good[0])
    assert f"client_ca_file: cannot use {authority}: OpenSSL" in mistakes(file)[0]
    marks = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF\n\n"
    key.write_text(re.sub(r"(-----BEGIN .*\n)", rf"\g<1>{marks}", good[1]))
    assert f"it is encrypted; write it without a password: openssl pkey -in {key} -out FILE" in mistakes(file)[0]


@pytest.mark.parametrize("kind", ["2a", "2b", "2x", "2y"])
def test_hashes_of_all_tools_are_read(tmp_path: Path, kind: str) -> None:
    """Apache's htpasswd writes $2y$, Python and Go write $2b$ and $2a$. The salt's last letter is one of four."""
    good = hashed(SECRET).replace("$2b$", f"${kind}$")
    for letter in "./AOZeuz9":
        users = {"prometheus": good[:28] + letter + good[29:]}
        file = write_plain_config(tmp_path, users=users)
        if letter in ".Oeu":
            assert load_web_config(file).users == users
        else:
            assert "is not a bcrypt hash" in mistakes(file)[0]


def examples() -> list[str]:
    """Return the YAML that the documentation shows."""
    return re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", [text for text in examples() if text.startswith("tls_server_config")])
def test_the_examples_in_the_documentation_load(tmp_path: Path, text: str) -> None:
    """With files of these names beside them."""
    write_certificate(tmp_path, "server")
    (tmp_path / "ca.pem").rename(tmp_path / "clients-ca.pem")
    file = tmp_path / "web.yml"
    file.write_text(text.replace("$2y$10$...", hashed(SECRET)))
    assert load_web_config(file).tls is not None


def test_prometheus_accepts_the_example_in_the_documentation(tmp_path: Path) -> None:
    """It passes promtool's check."""
    if not shutil.which("promtool"):
        pytest.skip("promtool is missing; on Debian and Ubuntu: apt install prometheus")
    write_certificate(tmp_path, "prometheus")
    (tmp_path / "password").write_text(SECRET)
    (text,) = (text for text in examples() if text.startswith("scrape_configs"))
    file = tmp_path / "prometheus.yml"
    file.write_text(text)
    checked = subprocess.run(["promtool", "check", "config", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
