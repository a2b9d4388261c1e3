"""TLS: real handshakes, and clients that mean no good."""

import asyncio
import gc
import logging
import re
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest

from pgwatch_sessions.web.crowd import Bounds
from tests.support.certificates import trusting, write_certificate, write_web_config
from tests.support.guarded_server import BODY, PATIENCE, REQUEST, Reader, Writer, guarded, status

#: These tests serve HTTP with slow passwords and deadlines.
pytestmark = pytest.mark.slow

QUICK = Bounds(deadline=0.3)
REFUSED = (httpx.TransportError, OSError)


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert that nothing that a client does is logged."""
    with caplog.at_level(logging.INFO):
        yield
    records = caplog.get_records("call")
    assert [record for record in records if record.name not in {"httpx", "asyncio"}] == []
    assert [record for record in records if record.levelno >= logging.WARNING] == []


@asynccontextmanager
async def connected(client: httpx.AsyncClient, *, tls: bool) -> AsyncIterator[tuple[Reader, Writer]]:
    """Open a connection to the server of this client, and end the handshake if it is TLS."""
    context, name = (trusting(), "localhost") if tls else (None, None)
    url = client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port, ssl=context, server_hostname=name, limit=2**20)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_until_closed(reader: Reader) -> bytes:
    """Read until the server closes the connection, in whichever way."""
    received = b""
    async with asyncio.timeout(PATIENCE):
        try:
            while data := await reader.read(65536):
                received += data
        except OSError:
            pass
    return received


async def answer_to(client: httpx.AsyncClient, said: bytes, *, tls: bool) -> bytes:
    """Send bytes, and return all that comes back until the connection is closed."""
    async with connected(client, tls=tls) as (reader, writer):
        writer.write(said)
        return await read_until_closed(reader)


def begun_handshake() -> bytes:
    """Return the first message of a client: a handshake that does not go on."""
    to_send = ssl.MemoryBIO()
    tls = trusting().wrap_bio(ssl.MemoryBIO(), to_send, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return to_send.read()


async def test_answers_come_through_tls(tmp_path: Path) -> None:
    """A client that verifies the certificate gets large answers, on a connection that it keeps."""
    body = "x" * 5_000_000
    async with guarded(write_web_config(tmp_path), body=body) as client:
        for _ in range(3):
            assert (await client.get("/metrics")).text == body
    async with guarded(write_web_config(tmp_path)) as client:
        requests = REQUEST * 3 + REQUEST[:-2] + b"Connection: close\r\n\r\n"
        answer = await answer_to(client, requests, tls=True)
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"] * 4
        assert b" 400 " in await answer_to(client, b"\x00\x01\r\n\r\n", tls=True)


@pytest.mark.parametrize(
    ("lowest", "spoken"), [("TLS12", ["TLSv1.2", "TLSv1.3"]), ("TLS13", ["TLSv1.3"])], ids=["TLS12", "TLS13"]
)
async def test_min_version_is_the_lowest_version_spoken(tmp_path: Path, lowest: str, spoken: list[str]) -> None:
    """Clients choose the version; older ones than min_version are refused."""
    agreed = []
    async with guarded(write_web_config(tmp_path, f"min_version: {lowest}")) as client:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting()
            context.minimum_version = context.maximum_version = version
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port, ssl=context)
            except OSError:
                continue
            agreed.append(writer.get_extra_info("ssl_object").version())
            writer.transport.abort()
    assert agreed == spoken


@pytest.mark.promise("Where logins are configured, nobody is answered without one.")
@pytest.mark.parametrize("required", [True, False], ids=["RequireAndVerifyClientCert", "VerifyClientCertIfGiven"])
async def test_client_certificates_are_verified(tmp_path: Path, *, required: bool) -> None:
    """A certificate of another authority is refused. Having none is refused only where one is required."""
    write_certificate(tmp_path, "prometheus", "prometheus.example")
    write_certificate(tmp_path, "stranger", "prometheus.example", by="others")
    kind = "RequireAndVerifyClientCert" if required else "VerifyClientCertIfGiven"
    async with guarded(write_web_config(tmp_path, f"client_auth_type: {kind}", "client_ca_file: ca.pem")) as client:

        async def answer(name: str | None) -> bool:
            context = trusting(certificate=tmp_path / name if name else None)
            async with httpx.AsyncClient(verify=context, timeout=PATIENCE, base_url=client.base_url) as own:
                try:
                    return (await own.get("/metrics")).text == BODY
                except REFUSED:
                    return False

        assert await answer("prometheus.pem")
        assert not await answer("stranger.pem")
        assert await answer(None) is not required


async def test_a_refused_client_is_told_why(tmp_path: Path) -> None:
    """By TLS's alert, which Prometheus shows on its page of targets and `check-health` understands."""
    write_certificate(tmp_path, "stranger", "prometheus.example", by="others")
    required = ("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem")
    async with guarded(write_web_config(tmp_path, *required)) as client:

        async def reason(context: ssl.SSLContext) -> str | None:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port, ssl=context)
                writer.write(REQUEST)
                async with asyncio.timeout(PATIENCE):
                    return str(await reader.read())
            except ssl.SSLError as error:
                return error.reason

        assert await reason(trusting()) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        assert await reason(trusting(certificate=tmp_path / "stranger.pem")) == "TLSV1_ALERT_UNKNOWN_CA"
        older = trusting()
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        assert "ALERT" in (await reason(older) or "")


async def test_stalled_handshakes_do_not_keep_prometheus_out(tmp_path: Path) -> None:
    """Of a hundred clients that begin a handshake and go no further, the oldest give way to a scrape."""
    bounds = Bounds(deadline=30, connections=64, turned_away_with_tls=0)
    hello = begun_handshake()
    async with guarded(write_web_config(tmp_path), bounds) as client, AsyncExitStack() as stack:
        stalled = []
        for said in (b"", hello[:20], hello[:-1], hello) * 25:
            reader, writer = await stack.enter_async_context(connected(client, tls=False))
            writer.write(said)
            stalled.append(reader)
        assert await status(client) == 200
        async with asyncio.timeout(PATIENCE):
            for reader in stalled[: len(stalled) - bounds.connections]:
                await read_until_closed(reader)
        assert not any(reader.at_eof() for reader in stalled[len(stalled) - bounds.connections + 2 :])


@pytest.mark.parametrize("said", [begun_handshake(), b"\x00" * 100], ids=["stalled", "garbage"])
async def test_the_memory_of_a_closed_connection_is_free_at_once(tmp_path: Path, said: bytes) -> None:
    """TLS takes 256 KiB for each. They must not pile up while somebody connects again and again."""
    bounds = Bounds(connections=4)
    async with guarded(write_web_config(tmp_path), bounds) as client:
        await status(client)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(100):
                async with connected(client, tls=False) as (_, writer):
                    writer.write(said)
                    await asyncio.sleep(0.001)
            assert await status(client) == 200
            assert tracemalloc.get_traced_memory()[0] < 2 * bounds.connections * 256 * 1024
        finally:
            tracemalloc.stop()
            gc.enable()


async def test_a_handshake_and_its_request_have_one_deadline(tmp_path: Path) -> None:
    """Clients that do not begin the handshake, do not end it, send it byte by byte, or then ask nothing, are cut."""

    async def drip(reader: Reader, writer: Writer) -> None:
        for byte in begun_handshake():
            if reader.at_eof() or writer.is_closing():
                return
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    loop = asyncio.get_running_loop()
    async with guarded(write_web_config(tmp_path), QUICK) as client, AsyncExitStack() as stack:
        begun = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for said in (b"", begun_handshake(), b"\x16\x03\x01", None):
                reader, writer = await stack.enter_async_context(connected(client, tls=False))
                tasks.create_task(read_until_closed(reader))
                if said is None:
                    tasks.create_task(drip(reader, writer))
                else:
                    writer.write(said)
            reader, _ = await stack.enter_async_context(connected(client, tls=True))
            tasks.create_task(read_until_closed(reader))
            assert await status(client) == 200
        assert QUICK.deadline <= loop.time() - begun < 10 * QUICK.deadline  # byte by byte alone takes longer


async def test_a_client_that_never_reads_is_cut(tmp_path: Path) -> None:
    """A response that nobody takes is given up after the deadline."""
    size = 20_000_000
    async with guarded(write_web_config(tmp_path), QUICK, body="x" * size) as client:
        async with connected(client, tls=True) as (reader, writer):
            writer.write(REQUEST)
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # of asyncio's own transport
            # Time itself is what this client does: it does not read for longer than the deadline.
            await asyncio.sleep(QUICK.deadline * 2)
            writer.transport.resume_reading()  # type: ignore[attr-defined]  # the same
            assert len(await read_until_closed(reader)) < size
        assert (await client.head("/metrics")).status_code == 200


@pytest.mark.parametrize(
    "garbage",
    [b"\x00" * 100, b"\xff" * 5000, b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"\x80\x2e\x01\x00\x02" * 20, REQUEST],
    ids=["zeros", "ones", "huge record", "old hello", "plain HTTP"],
)
async def test_what_is_not_tls_is_cut(tmp_path: Path, garbage: bytes) -> None:
    """At its deadline at the latest; plain HTTP at once. Other connections are not affected."""
    bounds = Bounds() if garbage == REQUEST else QUICK
    async with guarded(write_web_config(tmp_path), bounds) as client:
        assert BODY.encode() not in await answer_to(client, garbage, tls=False)
        assert await status(client) == 200


async def test_leaving_closes_every_connection_in_time(tmp_path: Path) -> None:
    """Stalled handshakes, idle clients and unread answers do not delay the end, which closes them."""

    def ended(client: socket.socket) -> bool:
        client.settimeout(PATIENCE)
        try:
            while client.recv(2**20):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        clients = []
        async with guarded(write_web_config(tmp_path), body="x" * 20_000_000) as client:
            address = (client.base_url.host, client.base_url.port or 0)
            for said in (b"", begun_handshake(), b"\x16\x03"):
                plain = stack.enter_context(closing(socket.create_connection(address)))
                plain.sendall(said)
                clients.append(plain)
            for request in (b"", REQUEST):
                plain = stack.enter_context(closing(socket.create_connection(address)))
                secret = await asyncio.to_thread(trusting().wrap_socket, plain, server_hostname="localhost")
                stack.enter_context(closing(secret)).sendall(request)
                clients.append(secret)
            leaving = loop.time()
        assert loop.time() - leaving < PATIENCE
        assert [await asyncio.to_thread(ended, client) for client in clients] == [True] * 5
