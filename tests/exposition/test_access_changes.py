"""A web configuration that changes while it is in use."""

import asyncio
import json
import os
import ssl
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from pgwatch_sessions.exposition.access import Access
from tests.exposition.certificates import (
    hashed,
    write_certificate,
    write_plain_config,
    write_web_config,
)
from tests.exposition.guarded import LOGIN, PASSWORD, guarded, status
from tests.web.test_app import PATIENCE


def test_users_come_and_go_with_the_next_request(tmp_path: Path) -> None:
    """On a connection that is kept: a new user may, a changed password counts, a removed user may not any more."""

    async def run() -> None:
        access = Access(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD)}))
        async with guarded(access) as client:
            assert (await client.get("/metrics", auth=LOGIN)).status_code == 200
            write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD), "ops": hashed("other")})
            assert (await client.get("/metrics", auth=("ops", "other"))).status_code == 200
            assert (await client.get("/metrics", auth=LOGIN)).status_code == 200
            write_plain_config(tmp_path, users={"prometheus": hashed("new"), "ops": hashed("other")})
            assert (await client.get("/metrics", auth=LOGIN)).status_code == 401
            assert (await client.get("/metrics", auth=("prometheus", "new"))).status_code == 200
            write_plain_config(tmp_path, users={"ops": hashed("other")})
            assert (await client.get("/metrics", auth=("prometheus", "new"))).status_code == 401
            assert (await client.get("/metrics", auth=("ops", "other"))).status_code == 200

    with capture_logs() as logs:
        asyncio.run(run())
    assert [entry["event"] for entry in logs] == ["web_config_reloaded"] * 3


async def shown_certificate(client: httpx.AsyncClient) -> bytes:
    """Return the certificate that a new connection is shown, whatever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port, ssl=context)
    try:
        shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = shown.getpeercert(binary_form=True)
        assert certificate
        return certificate
    finally:
        writer.transport.abort()


def test_a_new_certificate_is_used_by_the_next_handshake(tmp_path: Path) -> None:
    """Replaced in place or by a link, as Kubernetes does; connections that are open go on."""

    async def run() -> None:
        for name in ("one", "two", "three"):
            (tmp_path / name).mkdir()
            write_certificate(tmp_path / name, "server")
        for kind in ("pem", "key"):
            (tmp_path / f"server.{kind}").symlink_to(tmp_path / "now" / f"server.{kind}")
        (tmp_path / "now").symlink_to(tmp_path / "one")
        async with guarded(Access(write_web_config(tmp_path))) as client:
            assert await status(client) == 200
            first = await shown_certificate(client)
            (tmp_path / "next").symlink_to(tmp_path / "two")
            (tmp_path / "next").rename(tmp_path / "now")
            second = await shown_certificate(client)
            for kind in ("pem", "key"):
                (tmp_path / "two" / f"server.{kind}").write_bytes((tmp_path / "three" / f"server.{kind}").read_bytes())
            third = await shown_certificate(client)
            assert len({first, second, third}) == 3
            assert await shown_certificate(client) == third
            assert await status(client) == 200

    with capture_logs() as logs:
        asyncio.run(run())
    assert [entry["event"] for entry in logs] == ["web_config_reloaded"] * 2


def test_a_broken_change_keeps_what_was_and_is_told_once(tmp_path: Path) -> None:
    """A key that does not fit, a hash that is none, files that are gone: the last good configuration stays in use."""

    async def run() -> None:
        file = write_web_config(tmp_path, users={"prometheus": hashed(PASSWORD)})
        good = file.read_text(), (tmp_path / "server.key").read_bytes()
        async with guarded(Access(file)) as client:
            certificate = await shown_certificate(client)

            async def is_as_before() -> None:
                for _ in range(3):
                    assert await status(client, auth=LOGIN) == 200
                    assert await status(client) == 401
                    assert await shown_certificate(client) == certificate

            write_certificate(tmp_path, "other")
            (tmp_path / "server.key").write_bytes((tmp_path / "other.key").read_bytes())
            await is_as_before()
            (tmp_path / "server.key").write_bytes(good[1])
            file.write_text(good[0].replace("$2b$", "secret$"))
            await is_as_before()
            file.unlink()
            await is_as_before()
            file.write_text(good[0])
            await is_as_before()

    with capture_logs() as logs:
        asyncio.run(run())
    assert [entry["event"] for entry in logs] == [*["web_config_failed"] * 3, "web_config_reloaded"]
    assert "does not fit the certificate" in str(logs[0]["errors"])
    assert "is no bcrypt hash" in str(logs[1]["errors"])
    assert "no such file" in str(logs[2]["errors"])
    assert "secret$" not in json.dumps(logs)


@pytest.mark.parametrize("half", ["", "tls_server_config:\n", "http_server_config: {http2: false}\n", "tls_server_"])
def test_a_file_that_is_half_written_opens_nothing(tmp_path: Path, half: str) -> None:
    """TLS and passwords are not switched off while the daemon runs: that would poll just like this."""

    async def run() -> None:
        file = write_web_config(tmp_path, users={"prometheus": hashed(PASSWORD)})
        async with guarded(Access(file)) as client:
            certificate = await shown_certificate(client)
            file.write_text(half)
            assert await shown_certificate(client) == certificate
            assert await status(client) == 401

    with capture_logs() as logs:
        asyncio.run(run())
    assert [entry["event"] for entry in logs] == ["web_config_failed"]


def test_certificates_of_clients_are_not_switched_off_either(tmp_path: Path) -> None:
    """The same holds for client_auth_type; to switch something on is a change like others."""
    required = ("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem")

    async def run() -> None:
        async with guarded(Access(write_web_config(tmp_path))) as client:
            assert await status(client) == 200
            write_web_config(tmp_path, *required)
            with pytest.raises((httpx.TransportError, OSError)):
                await status(client)
            write_web_config(tmp_path)
            with pytest.raises((httpx.TransportError, OSError)):
                await status(client)

    with capture_logs() as logs:
        asyncio.run(run())
    assert [entry["event"] for entry in logs] == ["web_config_reloaded", "web_config_failed"]
    assert "for which the daemon has to be restarted" in str(logs[1]["errors"])


def test_the_names_of_certificates_are_not_let_go_either(tmp_path: Path) -> None:
    """A file may be half written and end before client_allowed_sans, and would admit all whom the authority knows."""
    required = ("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem")

    async def run() -> None:
        write_certificate(tmp_path, "other", "other.example")
        access = Access(write_web_config(tmp_path, *required, "client_allowed_sans: [prometheus.example]"))
        admits = access.tls().admits
        write_web_config(tmp_path, *required)
        assert access.tls().admits is admits
        write_web_config(tmp_path, *required, "client_allowed_sans: [other.example]")
        assert access.tls().admits is not admits

    with capture_logs() as logs:
        asyncio.run(run())
    assert [entry["event"] for entry in logs] == ["web_config_failed", "web_config_reloaded"]
    assert "switches client_allowed_sans off" in str(logs[0]["errors"])


@pytest.mark.parametrize("instead", ["pipe", "folder", "huge", "no path"])
def test_what_is_no_configuration_stops_nothing(tmp_path: Path, instead: str) -> None:
    """What takes its place while the daemon runs is not waited for, nor read without end, and told once."""

    async def run() -> None:
        file = write_web_config(tmp_path)
        async with guarded(Access(file)) as client:
            file.unlink()
            if instead == "pipe":
                os.mkfifo(file)
            elif instead == "folder":
                file.mkdir()
            elif instead == "huge":
                file.write_text("# nothing\n" * 10_000_000)
            else:
                file.write_text('tls_server_config: {cert_file: "server\\0.pem", key_file: server.key}')
            loop = asyncio.get_running_loop()
            asked = loop.time()
            for _ in range(3):
                assert await status(client) == 200
            assert loop.time() - asked < 1

    with capture_logs() as logs:
        asyncio.run(run())
    assert [entry["event"] for entry in logs] == ["web_config_failed"]


def test_a_failure_of_a_file_that_no_stamp_shows_is_tried_again(tmp_path: Path) -> None:
    """The configuration names a certificate that is not there yet: once it is, it is used, without another change."""

    async def run() -> None:
        file = write_web_config(tmp_path)
        async with guarded(Access(file)) as client:
            first = await shown_certificate(client)
            file.write_text(file.read_text().replace("server.", "new."))
            loop = asyncio.get_running_loop()
            asked_until = loop.time() + 1.5  # it is tried again each second, and told once all the same
            while loop.time() < asked_until:
                assert await shown_certificate(client) == first
            write_certificate(tmp_path, "new")
            async with asyncio.timeout(PATIENCE):
                while await shown_certificate(client) == first:
                    pass

    with capture_logs() as logs:
        asyncio.run(run())
    assert [entry["event"] for entry in logs] == ["web_config_failed", "web_config_reloaded"]


# --- metrics only ---
