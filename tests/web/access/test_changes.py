"""A web configuration that changes while it is in use."""

import asyncio
import json
import os
import ssl
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from tests.support.certificates import hashed, write_certificate, write_plain_config, write_web_config
from tests.support.guarded_server import LOGIN, PASSWORD, PATIENCE, guarded, status

#: These tests serve HTTP with slow passwords and deadlines.
pytestmark = pytest.mark.slow

REQUIRED = ("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem")
REFUSED = (httpx.TransportError, OSError)


async def shown_certificate(client: httpx.AsyncClient) -> bytes:
    """Return the certificate that a new connection is shown, whatever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port, ssl=context)
    shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = shown.getpeercert(binary_form=True)
    writer.transport.abort()
    assert certificate
    return certificate


async def test_users_change_with_the_next_request(tmp_path: Path) -> None:
    """On a connection that is kept, too: users are added and removed, and passwords changed."""
    with capture_logs() as logs:
        async with guarded(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD)})) as client:

            async def answer(*login: str) -> int:
                return (await client.get("/metrics", auth=(login[0], login[1]))).status_code

            assert await answer(*LOGIN) == 200
            write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD), "ops": hashed("other")})
            assert await answer("ops", "other") == await answer(*LOGIN) == 200
            write_plain_config(tmp_path, users={"prometheus": hashed("new"), "ops": hashed("other")})
            assert await answer(*LOGIN) == 401
            assert await answer("prometheus", "new") == 200
            write_plain_config(tmp_path, users={"ops": hashed("other")})
            assert await answer("prometheus", "new") == 401
            assert await answer("ops", "other") == 200
    assert [entry["event"] for entry in logs if entry["event"] != "login_failed"] == ["web_config_reloaded"] * 3


async def test_the_next_handshake_uses_a_new_certificate(tmp_path: Path) -> None:
    """It may be replaced in place, or by a link as Kubernetes does. Open connections go on."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        write_certificate(tmp_path / name, "server")
    for kind in ("pem", "key"):
        (tmp_path / f"server.{kind}").symlink_to(tmp_path / "now" / f"server.{kind}")
    (tmp_path / "now").symlink_to(tmp_path / "one")
    with capture_logs() as logs:
        async with guarded(write_web_config(tmp_path)) as client:
            shown = [await shown_certificate(client)]
            assert (await client.get("/metrics")).status_code == 200
            (tmp_path / "next").symlink_to(tmp_path / "two")
            (tmp_path / "next").rename(tmp_path / "now")
            shown.append(await shown_certificate(client))
            for kind in ("pem", "key"):
                (tmp_path / "two" / f"server.{kind}").write_bytes((tmp_path / "three" / f"server.{kind}").read_bytes())
            shown.append(await shown_certificate(client))
            assert len(set(shown)) == 3
            assert await shown_certificate(client) == shown[-1]
            assert (await client.get("/metrics")).status_code == 200
    assert [entry["event"] for entry in logs] == ["web_config_reloaded"] * 2


async def test_a_broken_change_keeps_the_former_configuration(tmp_path: Path) -> None:
    """A key of another certificate, an invalid hash, a missing file: each is logged once, without secrets."""
    file = write_web_config(tmp_path, users={"prometheus": hashed(PASSWORD)})
    key = tmp_path / "server.key"
    good = file.read_text(), key.read_bytes()
    write_certificate(tmp_path, "other")
    with capture_logs() as logs:
        async with guarded(file) as client:
            certificate = await shown_certificate(client)

            async def is_as_before() -> None:
                for _ in range(3):
                    assert await status(client, LOGIN) == 200
                    assert await status(client) == 401
                    assert await shown_certificate(client) == certificate

            key.write_bytes((tmp_path / "other.key").read_bytes())
            await is_as_before()
            key.write_bytes(good[1])
            file.write_text(good[0].replace("$2b$", "secret$"))
            await is_as_before()
            file.unlink()
            await is_as_before()
            file.write_text(good[0])
            await is_as_before()
    assert [entry["event"] for entry in logs] == [*["web_config_failed"] * 3, "web_config_reloaded"]
    for entry, reason in zip(logs, ("does not belong to", "is not a bcrypt hash", "no such file"), strict=False):
        assert reason in str(entry["errors"])
    assert "secret$" not in json.dumps(logs)


@pytest.mark.promise("Where logins are configured, nobody is answered without one.")
@pytest.mark.parametrize("half", ["", "tls_server_config:\n", "basic_auth_users: {}\n", "tls_server_", "TLS only"])
async def test_a_half_written_file_opens_nothing(tmp_path: Path, half: str) -> None:
    """It looks as if TLS or passwords were no longer wanted."""
    file = write_web_config(tmp_path, users={"prometheus": hashed(PASSWORD)})
    with capture_logs() as logs:
        async with guarded(file) as client:
            certificate = await shown_certificate(client)
            text = file.read_text().partition("basic_auth_users")[0] if half == "TLS only" else half
            file.write_text(text)
            assert await shown_certificate(client) == certificate
            assert await status(client) == 401
    assert [entry["event"] for entry in logs] == ["web_config_failed"]


@pytest.mark.promise("Where logins are configured, nobody is answered without one.")
async def test_only_a_restart_removes_protection(tmp_path: Path) -> None:
    """While the daemon runs, client certificates and the minimum version can be switched on, but not off."""
    with capture_logs() as logs:
        async with guarded(write_web_config(tmp_path)) as client:
            assert await status(client) == 200
            write_web_config(tmp_path, *REQUIRED, "min_version: TLS13")
            with pytest.raises(REFUSED):
                await status(client)
            write_web_config(tmp_path)
            with pytest.raises(REFUSED):
                await status(client)
    assert [entry["event"] for entry in logs] == ["web_config_reloaded", "web_config_failed"]
    for protection in ("RequireAndVerifyClientCert", "TLS13"):
        assert f"removes {protection}, which takes effect only after a restart" in str(logs[1]["errors"])


async def test_only_a_restart_turns_http_into_https(tmp_path: Path) -> None:
    """Otherwise all clients would fail at once."""
    with capture_logs() as logs:
        async with guarded(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD)})) as client:
            write_web_config(tmp_path, users={"prometheus": hashed(PASSWORD)})
            assert await status(client, LOGIN) == 200
    assert "adds TLS" in str(logs[0]["errors"])


@pytest.mark.parametrize("kind", ["pipe", "folder", "huge", "aliases"])
async def test_a_file_that_cannot_be_used_any_more_does_not_stop_the_daemon(tmp_path: Path, kind: str) -> None:
    """It is neither waited for nor read without end, and logged once."""
    file = write_web_config(tmp_path)
    with capture_logs() as logs:
        async with guarded(file) as client:
            file.unlink()
            if kind == "pipe":
                os.mkfifo(file)
            elif kind == "folder":
                file.mkdir()
            elif kind == "aliases":  # they stand for ten billion values
                lists = (f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 11))
                file.write_text("\n".join(["a0: &a0 [x]", *lists]))
            else:
                file.write_text("# nothing\n" * 10_000_000)
            async with asyncio.timeout(1):
                assert [await status(client) for _ in range(3)] == [200] * 3
    assert [entry["event"] for entry in logs] == ["web_config_failed"]


async def test_a_certificate_that_comes_later_is_used(tmp_path: Path) -> None:
    """The configuration may name a file before it is there: it is tried again each second, and logged once."""
    file = write_web_config(tmp_path)
    with capture_logs() as logs:
        async with guarded(file) as client:
            first = await shown_certificate(client)
            file.write_text(file.read_text().replace("server.", "new."))
            end = asyncio.get_running_loop().time() + 1.5
            while asyncio.get_running_loop().time() < end:
                assert await shown_certificate(client) == first
            write_certificate(tmp_path, "new")
            async with asyncio.timeout(PATIENCE):
                while await shown_certificate(client) == first:
                    pass
    assert [entry["event"] for entry in logs] == ["web_config_failed", "web_config_reloaded"]
