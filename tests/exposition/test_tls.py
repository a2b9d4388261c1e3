"""The web side through TLS: real handshakes, and clients that mean no good."""

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from prometheus_client import CollectorRegistry

from pgwatch_sessions.exposition.access import Access
from pgwatch_sessions.web.app import web_app
from pgwatch_sessions.web.http_server import Bounds, bind, serving
from tests.exposition.certificates import OURS, authority, write_certificate, write_web_config
from tests.web.test_app import PATIENCE, QUICK, SCRAPE, Reader, Watched, Writer, passed, read_until_cut


@asynccontextmanager
async def secured(
    web_config: Path,
    bounds: Bounds = Bounds(),  # noqa: B008 - immutable
    *,
    watched: Watched | None = None,
) -> AsyncIterator[int]:
    """Serve by a web configuration over a real socket, and give its port."""
    watched = watched or Watched()
    registry = CollectorRegistry()
    registry.register(watched)
    access = Access(web_config)
    app = web_app(
        version="1.2.3",
        registry=registry,
        states=lambda: watched.state,
        health=passed,
        readiness=passed,
        access=access,
    )
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with serving(app, listener, bounds, tls=access.tls):
        try:
            yield port
        finally:
            access.close()


def trusting(*, certificate: Path | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return what a careful client uses, with a certificate of its own where one is given."""
    context = ssl.create_default_context()
    authority(OURS).configure_trust(context)
    if certificate:
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


async def scraped(port: int, context: ssl.SSLContext | None = None) -> str:
    """Scrape on a connection of its own; the answer must be 200."""
    async with httpx.AsyncClient(verify=context or trusting(), timeout=PATIENCE) as client:
        response = await client.get(f"https://127.0.0.1:{port}/metrics")
        assert response.status_code == 200
        return response.text


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Reader, Writer]]:
    """Open a connection, through TLS when there is a context."""
    name = "localhost" if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name, limit=2**20)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer_to(port: int, said: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Say this, and return all that comes back until the connection is closed."""
    async with connected(port, context) as (reader, writer):
        writer.write(said)
        return await read_until_cut(reader)


def begun_handshake() -> bytes:
    """Return the first message of a client, and so a handshake that never goes on."""
    to_send = ssl.MemoryBIO()
    tls = trusting().wrap_bio(ssl.MemoryBIO(), to_send, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return to_send.read()


@pytest.fixture(autouse=True)
def silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is worth a line in the log, let alone a traceback."""
    with caplog.at_level(logging.INFO):
        yield
    assert [record for record in caplog.records if record.name not in {"httpx", "asyncio"}] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_answers_come_through_tls(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """A client that verifies the certificate gets everything, on a connection that it keeps, and large answers too."""

    async def run() -> None:
        web_config = write_web_config(tmp_path)
        async with (
            secured(web_config, watched=Watched(padding=5_000_000)) as port,
            httpx.AsyncClient(verify=trusting(version=version), timeout=PATIENCE) as client,
        ):
            for path in ("/healthz", "/", "/metrics", "/readyz"):
                assert (await client.get(f"https://localhost:{port}{path}")).status_code == 200
            metrics = (await client.get(f"https://localhost:{port}/metrics")).text
            assert len(metrics) > 5_000_000
            assert "sessions 1.0\n" in metrics

    asyncio.run(run())


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """Requests in one packet, each in a record of its own, of which the later wait for the first, are all answered."""

    async def run() -> None:
        async with secured(write_web_config(tmp_path)) as port, connected(port, trusting()) as (reader, writer):
            requests = [b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in (b"/healthz", b"/no", b"/readyz")]
            writer.writelines([*requests, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"])
            answer = await read_until_cut(reader)
            assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200", b"200"]
            assert answer.endswith(b"polls_total 7.0\n")

    asyncio.run(run())


def test_stalled_handshakes_do_not_keep_prometheus_out(tmp_path: Path) -> None:
    """Of a hundred clients that begin and go no further, silent ones among them, the oldest give way to a scrape."""

    async def run() -> None:
        bounds = Bounds(deadline=30, connections=64)
        hello = begun_handshake()
        async with secured(write_web_config(tmp_path), bounds) as port, AsyncExitStack() as stack:
            stalled = []
            for said in (b"", hello[:20], hello[:-1], hello) * 25:
                reader, writer = await stack.enter_async_context(connected(port))
                writer.write(said)
                stalled.append(reader)
            await scraped(port)
            async with asyncio.timeout(PATIENCE):
                for reader in stalled[: len(stalled) - bounds.connections]:
                    await read_until_cut(reader)
            assert not any(reader.at_eof() for reader in stalled[len(stalled) - bounds.connections + 2 :])

    asyncio.run(run())


def test_a_handshake_and_its_request_have_one_deadline(tmp_path: Path) -> None:
    """Clients that begin no handshake, do not end it, drip its bytes, or end it and ask nothing, are cut in time."""

    async def drip(reader: Reader, writer: Writer) -> None:
        for byte in begun_handshake():
            if reader.at_eof() or writer.is_closing():
                return
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with secured(write_web_config(tmp_path), QUICK) as port, AsyncExitStack() as stack:
            started = loop.time()
            cut = []
            async with asyncio.TaskGroup() as tasks:
                for said in (b"", begun_handshake(), b"\x16\x03\x01"):
                    reader, writer = await stack.enter_async_context(connected(port))
                    writer.write(said)
                    cut.append(tasks.create_task(read_until_cut(reader)))
                reader, writer = await stack.enter_async_context(connected(port))
                tasks.create_task(drip(reader, writer))
                cut.append(tasks.create_task(read_until_cut(reader)))
                reader, writer = await stack.enter_async_context(connected(port, trusting()))
                cut.append(tasks.create_task(read_until_cut(reader)))
                await scraped(port)
            assert QUICK.deadline <= loop.time() - started < QUICK.deadline + 1.5

    asyncio.run(run())


def test_a_client_that_never_reads_is_cut(tmp_path: Path) -> None:
    """A response that nobody takes is given up after the deadline."""

    async def run() -> None:
        size = 20_000_000
        async with secured(write_web_config(tmp_path), QUICK, watched=Watched(padding=size)) as port:
            async with connected(port, trusting()) as (reader, writer):
                writer.write(SCRAPE)
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # of asyncio's own transport
                # The client's behaviour is time itself: it does not read for longer than the deadline.
                await asyncio.sleep(QUICK.deadline * 2)
                writer.transport.resume_reading()  # type: ignore[attr-defined]  # the same
                received = await read_until_cut(reader)
            assert len(received) < size
            assert "polls_total 7.0" in await scraped(port)

    asyncio.run(run())


def test_a_client_that_sends_on_without_reading_is_cut(tmp_path: Path) -> None:
    """Requests without end, whose answers nobody reads, are not answered without end."""

    async def send_on(writer: Writer) -> None:
        while True:
            writer.write(SCRAPE * 100)
            await writer.drain()

    async def run() -> None:
        async with (
            secured(write_web_config(tmp_path), QUICK, watched=Watched(padding=100_000)) as port,
            connected(port, trusting()) as (_, writer),
            asyncio.timeout(PATIENCE),
        ):
            with pytest.raises(ConnectionError):
                await send_on(writer)

    asyncio.run(run())


@pytest.mark.parametrize(
    "garbage",
    [b"\x00" * 100, b"\xff" * 5000, b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"\x80\x2e\x01\x00\x02" * 20],
    ids=["zeros", "ones", "huge record", "old hello"],
)
def test_garbage_is_cut_at_once(tmp_path: Path, garbage: bytes) -> None:
    """What is no TLS ends its connection, and no other."""

    async def run() -> None:
        async with secured(write_web_config(tmp_path)) as port:
            assert b"HTTP" not in await answer_to(port, garbage)
            await scraped(port)

    asyncio.run(run())


def test_garbage_inside_tls_is_answered_400(tmp_path: Path) -> None:
    """What is no HTTP is treated as without TLS."""

    async def run() -> None:
        async with secured(write_web_config(tmp_path)) as port:
            assert b" 400 " in await answer_to(port, b"\x00\x01\r\n\r\n", trusting())
            assert b" 413 " in await answer_to(
                port, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", trusting()
            )

    asyncio.run(run())


def test_plain_http_on_the_tls_port_is_told_so(tmp_path: Path) -> None:
    """Whoever forgot the s in https reads it, in plain text."""

    async def run() -> None:
        async with secured(write_web_config(tmp_path)) as port:
            assert (await answer_to(port, SCRAPE)).endswith(b"This address speaks HTTPS, not HTTP.\n")

    asyncio.run(run())


def test_a_client_without_certificate_is_told_by_an_alert(tmp_path: Path) -> None:
    """Where certificates are required: none, or one of another authority, is refused with the alert that says so."""

    async def refused(port: int, context: ssl.SSLContext) -> str:
        try:
            async with connected(port, context) as (reader, writer):
                writer.write(SCRAPE)
                return str(await reader.read())
        except ssl.SSLError as error:
            return str(error.reason)

    async def run() -> None:
        write_certificate(tmp_path, "prometheus", "prometheus.example")
        write_certificate(tmp_path, "stranger", "prometheus.example", by="others")
        web_config = write_web_config(
            tmp_path, "client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem"
        )
        async with secured(web_config) as port:
            assert "CERTIFICATE_REQUIRED" in await refused(port, trusting())
            assert "ALERT" in await refused(port, trusting(version=ssl.TLSVersion.TLSv1_2))
            assert "UNKNOWN_CA" in await refused(port, trusting(certificate=tmp_path / "stranger.pem"))
            await scraped(port, trusting(certificate=tmp_path / "prometheus.pem"))

    asyncio.run(run())


def test_certificates_may_be_left_away_where_they_are_verified_if_given(tmp_path: Path) -> None:
    """VerifyClientCertIfGiven admits clients without one, and refuses wrong ones."""

    async def run() -> None:
        write_certificate(tmp_path, "prometheus", "prometheus.example")
        write_certificate(tmp_path, "stranger", "prometheus.example", by="others")
        web_config = write_web_config(tmp_path, "client_auth_type: VerifyClientCertIfGiven", "client_ca_file: ca.pem")
        async with secured(web_config) as port:
            await scraped(port)
            await scraped(port, trusting(certificate=tmp_path / "prometheus.pem"))
            with pytest.raises((httpx.TransportError, OSError)):
                await scraped(port, trusting(certificate=tmp_path / "stranger.pem"))

    asyncio.run(run())


def test_names_of_kinds_that_nobody_allows_are_passed_over(tmp_path: Path) -> None:
    """A certificate may have a directory's name or a number among its names; the allowed one still counts."""
    unusual = x509.SubjectAlternativeName(
        [
            x509.DirectoryName(x509.Name([])),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
            x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
            x509.DNSName("prometheus.example"),
        ]
    )
    signer = load_pem_private_key(authority(OURS).private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority(OURS).cert_pem.bytes())
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(issuer.subject, x509.Name([]), key.public_key(), 1)
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(unusual, critical=True)
        .sign(signer, SHA256())
    )
    (tmp_path / "prometheus.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "prometheus.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    async def run() -> None:
        required = ("client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem")
        for allowed, admitted in (("prometheus.example", True), ("1.2.3", False), ("<unsupported>", False)):
            web_config = write_web_config(tmp_path, *required, f"client_allowed_sans: ['{allowed}']")
            async with secured(web_config) as port:
                context = trusting(certificate=tmp_path / "prometheus.pem")
                answer = await answer_to(port, SCRAPE[:-2] + b"Connection: close\r\n\r\n", context)
                assert bool(answer) is admitted

    asyncio.run(run())


@pytest.mark.parametrize("allowed", ["prometheus.example", "10.1.2.3", '"2001:db8:0::7"'])
def test_only_certificates_with_an_allowed_name_are_admitted(tmp_path: Path, allowed: str) -> None:
    """client_allowed_sans is matched against names and addresses of the client's certificate."""

    async def run() -> None:
        write_certificate(tmp_path, "prometheus", "prometheus.example", "10.1.2.3", "2001:db8::7")
        write_certificate(tmp_path, "other", "other.example", "10.1.2.30")
        web_config = write_web_config(
            tmp_path,
            "client_auth_type: RequireAndVerifyClientCert",
            "client_ca_file: ca.pem",
            f"client_allowed_sans: [{allowed}]",
        )
        async with secured(web_config) as port:
            await scraped(port, trusting(certificate=tmp_path / "prometheus.pem"))
            with pytest.raises((httpx.TransportError, OSError)):
                await scraped(port, trusting(certificate=tmp_path / "other.pem"))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("line", "version", "cipher"),
    [
        ("max_version: TLS12", "TLSv1.2", None),
        ("min_version: TLS13", "TLSv1.3", None),
        (
            "{max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]}",
            "TLSv1.2",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
    ],
)
def test_versions_and_suites_are_those_asked_for(tmp_path: Path, line: str, version: str, cipher: str | None) -> None:
    """The handshake ends in what the configuration names."""

    async def run() -> None:
        lines = [each.strip() for each in re.split(r", (?=\w+:)", line.strip("{}"))]
        async with secured(write_web_config(tmp_path, *lines)) as port, connected(port, trusting()) as (_, writer):
            tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
            agreed = tls.cipher()
            assert (tls.version(), tls.selected_alpn_protocol()) == (version, None)
            assert agreed
            assert cipher in {None, agreed[0]}

    asyncio.run(run())


def test_the_curve_is_the_one_asked_for(tmp_path: Path) -> None:
    """A client that knows another one only comes to no agreement."""

    async def run() -> None:
        async with secured(write_web_config(tmp_path, "curve_preferences: [CurveP384]")) as port:
            context = trusting()
            context.set_ecdh_curve("secp384r1")
            await scraped(port, context)
            context.set_ecdh_curve("prime256v1")
            with pytest.raises((httpx.TransportError, OSError)):
                await scraped(port, context)

    asyncio.run(run())


def test_leaving_closes_every_connection_in_time(tmp_path: Path) -> None:
    """Stalled handshakes, idle clients and unread answers do not hold up the end, and are closed by it."""

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

    async def run() -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            clients = []
            async with secured(write_web_config(tmp_path), watched=Watched(padding=20_000_000)) as port:
                context = trusting()
                for said in (b"", begun_handshake(), b"\x16\x03"):
                    plain = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
                    plain.sendall(said)
                    clients.append(plain)
                for request in (b"", SCRAPE):
                    plain = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
                    secret = await asyncio.to_thread(context.wrap_socket, plain, server_hostname="localhost")
                    stack.enter_context(closing(secret)).sendall(request)
                    clients.append(secret)
                leaving = loop.time()
            assert loop.time() - leaving < 2
            assert [await asyncio.to_thread(ended, client) for client in clients] == [True] * 5

    asyncio.run(run())
