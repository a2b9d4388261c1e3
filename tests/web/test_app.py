import asyncio
import base64
import gzip
import hashlib
import logging
import re
import signal
import socket
import sys
from contextlib import AsyncExitStack, closing
from urllib.parse import urljoin

import pytest

from pgwatch_sessions.web.app import Health
from pgwatch_sessions.web.http_server import Bounds, CannotListenError, bind, url
from tests.support.web import (
    PATHS,
    PATIENCE,
    QUICK,
    SCRAPE,
    Reader,
    Watched,
    Writer,
    answer_to,
    connected,
    read_until_cut,
    served,
)

#: These tests serve HTTP, some of them to clients that wait for a deadline.
pytestmark = pytest.mark.slow

#: What Prometheus 3 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        ("text/plain;version=1.0.0;escaping=dots", "text/plain; version=1.0.0; charset=utf-8; escaping=dots"),
        (
            'application/openmetrics-text; version="1.0.0"',
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
        (
            "application/openmetrics-text;version=99,text/plain;version=1.0.0",
            "text/plain; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
        ("application/openmetrics-text;version=x.y", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=" + "9" * 5000, "text/plain; version=0.0.4; charset=utf-8"),
        (",;=,;version=;,text/plain;version", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_format_is_negotiated(accept: str, content_type: str) -> None:
    """The format is one that the client accepts and we speak, and is named truly; nonsense gets the classic text."""
    async with served() as client:
        response = await client.get("/metrics", headers={"Accept": accept})
        assert response.status_code == 200
        assert response.headers["Content-Type"] == content_type
        assert response.headers["Vary"] == "Accept, Accept-Encoding"
        assert response.text.endswith("# EOF\n") == content_type.startswith("application/openmetrics-text")
        assert "sessions 1.0\n" in response.text


@pytest.mark.parametrize(
    ("accept_encoding", "compressed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("gzip;q=some", False),
    ],
)
async def test_gzip_only_for_those_who_accept_it(accept_encoding: str, *, compressed: bool) -> None:
    """The body is compressed when gzip is accepted with a weight above zero, else plain."""
    async with served() as client:
        request = f"GET /metrics HTTP/1.0\r\nAccept-Encoding: {accept_encoding}\r\n\r\n".encode()
        head, _, body = (await answer_to(client, request)).partition(b"\r\n\r\n")
        assert (b"content-encoding: gzip" in head.lower()) == compressed
        text = gzip.decompress(body) if compressed else body
        assert b"polls_total 7.0\n" in text


async def test_head_answers_like_get_without_a_body() -> None:
    """HEAD has the headers of GET, its length included, and the connection goes on being usable."""
    async with served() as client:
        for path in ("/", *PATHS):
            head, get = await client.head(path), await client.get(path)
            assert head.status_code == get.status_code == 200
            assert head.content == b""
            for name in ("Content-Length", "Content-Type"):
                assert head.headers[name] == get.headers[name]


async def test_one_rendering_for_each_published_state_and_form() -> None:
    """Scrapes of one published state are served from the same bytes; a new state is rendered anew."""
    watched = Watched()
    async with served(watched) as client:
        first = await asyncio.gather(*(client.get("/metrics") for _ in range(30)))
        assert {response.text for response in first} == {first[0].text}
        assert "sessions 1.0\n" in first[0].text
        await client.get("/metrics", headers={"Accept": PROMETHEUS})
        assert watched.collected == 2
        watched.state = dict(watched.state)
        assert "sessions 3.0\n" in (await client.get("/metrics")).text


async def test_forms_are_few_whatever_clients_accept() -> None:
    """A client that makes up versions and escapings causes no more renderings than there are forms."""
    watched = Watched()
    async with served(watched) as client:
        for kind in ("text/plain", "application/openmetrics-text"):
            for version in ("0.0.1", "0.0.4", "1.0.0", "1.0.1", "2.0.0", "3", ""):
                for escaping in ("dots", "values", "made-up", ""):
                    accept = f"{kind};version={version};escaping={escaping}"
                    await client.get("/metrics", headers={"Accept": accept})
        assert watched.collected <= 10


async def test_name_selects_series() -> None:
    """Only the series asked for by `name[]` are served; an unknown name gives an empty page, no error."""
    async with served() as client:
        headers = {"Accept": PROMETHEUS}
        response = await client.get("/metrics", params={"name[]": ["polls_total", "other"]}, headers=headers)
        assert re.findall(r"^# TYPE (.*)", response.text, re.MULTILINE) == ["polls counter"]
        nothing = await client.get("/metrics", params={"name[]": "'\"<\x00"})
        assert (nothing.status_code, nothing.text) == (200, "")


async def test_selections_cannot_make_the_daemon_render_without_end() -> None:
    """Too many selections within one published state are refused; the whole and known selections are served on."""
    watched = Watched()
    async with served(watched) as client:

        async def status(*names: str) -> int:
            return (await client.get("/metrics", params={"name[]": names})).status_code

        known = ("sessions", "polls_total")
        assert await status(*known) == 200
        statuses = [await status("sessions", str(number)) for number in range(30)]
        assert sorted(set(statuses)) == [200, 503]
        collected = watched.collected
        assert collected < 30
        assert await status(*reversed(known)) == 200
        assert watched.collected == collected
        assert (await client.get("/metrics")).status_code == 200
        watched.state = dict(watched.state)
        assert await status("sessions", "29") == 200


async def test_failing_collector_is_an_error_in_answer_and_log(caplog: pytest.LogCaptureFixture) -> None:
    """A collector that raises gives 500 and its traceback in the log, a bounded number of times; the rest goes on."""
    watched = Watched()
    watched.error = RuntimeError("a bug in a collector")
    async with served(watched) as client:
        for _ in range(25):
            response = await client.get("/metrics")
            assert response.status_code == 500
            assert "log" in response.text
            assert "bug" not in response.text
        assert (await client.get("/healthz")).status_code == 200
        watched.error = None
        assert (await client.get("/metrics")).status_code == 200
    assert 1 <= caplog.text.count("RuntimeError: a bug in a collector") <= 20


async def test_probes_say_why() -> None:
    """A probe answers 200 or 503, each with its reason in one line, and is never cached."""
    async with served(readiness=lambda: Health(ok=False, reason="no poll yet")) as client:
        ready, healthy = await client.get("/readyz"), await client.get("/healthz")
        assert (ready.status_code, ready.text) == (503, "no poll yet\n")
        assert (healthy.status_code, healthy.text) == (200, "polling every 10s\n")
        assert ready.headers["Cache-Control"] == healthy.headers["Cache-Control"] == "no-store"


async def test_page_leads_to_every_address() -> None:
    """The page names the version, escaped, and links addresses that all answer; it needs and allows nothing else."""
    async with served(version="1<script>") as client:
        page = await client.get("/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "1&lt;script&gt;" in page.text
        assert "<script" not in page.text
        links = re.findall(r'href="([^"]*)"', page.text)
        assert links == ["?refresh=off", *(path.lstrip("/") for path in PATHS)]
        assert {(await client.get(urljoin("/", link))).status_code for link in links} == {200}
        policy = page.headers["Content-Security-Policy"]
        (style,) = re.findall(r"<style>(.*)</style>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"default-src 'none'; style-src 'sha256-{digest}'" in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert "uvicorn" not in str(page.headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/metric", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 405), ("DELETE", "/", 405)],
)
async def test_wrong_addresses_and_methods_are_answered_with_the_right_ones(
    method: str, path: str, status: int
) -> None:
    """404 and 405 name the known addresses in plain text."""
    async with served() as client:
        response = await client.request(method, path)
        assert response.status_code == status
        assert response.text.endswith(f"Known addresses: /, {', '.join(PATHS)}\n")
        assert response.headers["Content-Type"].startswith("text/plain")
        if status == 405:
            assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "announcement", [b"Content-Length: 10000000000", b"Transfer-Encoding: chunked", b"Content-Length: 1"]
)
async def test_bodies_are_refused_unread(announcement: bytes) -> None:
    """A request that announces a body is answered at once, and its connection closed, without waiting for the body."""
    async with served() as client:
        request = b"GET /metrics HTTP/1.1\r\nHost: test\r\n" + announcement + b"\r\n\r\n"
        answer = await answer_to(client, request)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"No address here takes a request body.\n")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\r\n\r\n\x00\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000,
        b"GET /" + b"x" * 100_000,
    ],
)
async def test_nonsense_is_answered_400_and_not_logged(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What is not HTTP gets 400 and is cut, without a line in the log."""
    caplog.set_level(logging.INFO)
    async with served() as client:
        answer = await answer_to(client, nonsense)
        # The reset that follows bytes which nobody reads may overtake the answer.
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        assert (await client.get("/metrics")).status_code == 200
    assert [record for record in caplog.records if record.name != "httpx"] == []


async def test_nonsense_after_a_request_is_answered_400_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A request followed by nonsense gets 400 too, and an unknown upgrade is passed over, without a line in the log."""
    caplog.set_level(logging.INFO)
    async with served() as client:
        assert b" 400 " in await answer_to(client, SCRAPE + b"\x00\x01\r\n\r\n")
        body = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b" 400 " in await answer_to(client, body + b"not a chunk\r\n\r\n")
        assert b" 400 " in await answer_to(client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        async with connected(client) as (reader, writer):
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert (await client.get("/metrics")).status_code == 200
    assert [record for record in caplog.records if record.name != "httpx"] == []


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Several requests in one packet get their answers one after the other on the same connection."""
    async with served() as client:
        requests = [b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in (b"/healthz", b"/no", b"/readyz")]
        last = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        answer = await answer_to(client, b"".join(requests) + last)
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200", b"200"]


def test_a_body_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    """Nagle's algorithm is off on every accepted connection, else each answer on a kept one would take 40 ms."""
    with closing(bind("127.0.0.1", 0)) as listener, closing(socket.create_connection(listener.getsockname())):
        accepted, _ = listener.accept()
        with closing(accepted):
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_slow_clients_are_cut_while_others_are_served() -> None:
    """Clients that send nothing, a byte now and then, or go idle lose their connection after the deadline.

    Other scrapes are answered meanwhile.
    """

    async def drip(reader: Reader, writer: Writer) -> None:
        while not reader.at_eof() and not writer.is_closing():
            writer.write(b"X")
            await asyncio.sleep(0.02)

    loop = asyncio.get_running_loop()
    async with served(bounds=QUICK) as client, AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        started = loop.time()
        cut = []
        for head in (b"", b"GET /met", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", SCRAPE):
            reader, writer = await stack.enter_async_context(connected(client))
            writer.write(head)
            cut.append(tasks.create_task(read_until_cut(reader)))
            if head.endswith(b"X-Slow: "):
                tasks.create_task(drip(reader, writer))
        while not all(task.done() for task in cut):
            assert (await client.get("/metrics")).status_code == 200
            await asyncio.sleep(0.02)
        assert loop.time() - started >= QUICK.deadline
        assert [task.result()[:15] for task in cut] == [b"", b"", b"", b"HTTP/1.1 200 OK"]


async def test_connection_in_use_is_kept() -> None:
    """A client that scrapes on one connection keeps it beyond the deadline, which each response renews."""
    loop = asyncio.get_running_loop()
    async with served(bounds=QUICK) as client, connected(client) as (reader, writer), asyncio.timeout(PATIENCE):
        end = loop.time() + QUICK.deadline * 2
        while loop.time() < end:
            writer.write(SCRAPE)
            await reader.readuntil(b"polls_total 7.0\n")
            await asyncio.sleep(0.02)


async def test_client_that_never_reads_is_cut() -> None:
    """A response that nobody takes is given up after the deadline, its rest with it."""
    size = 20_000_000
    async with served(Watched(padding=size), QUICK) as client:
        sock = socket.create_connection((client.base_url.host, client.base_url.port))
        with closing(sock):
            sock.sendall(SCRAPE)
            # The client's behaviour is time itself: it does not read for longer than the deadline.
            await asyncio.sleep(QUICK.deadline * 2)
            sock.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=sock)
            received = await read_until_cut(reader)
            writer.transport.abort()
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert len(received) < size


async def test_client_that_sends_on_without_reading_is_cut() -> None:
    """Requests without end, whose answers nobody reads, are not answered without end: the connection is cut."""

    async def send_on(writer: Writer) -> None:
        while True:
            writer.write(SCRAPE * 100)
            await writer.drain()

    async with (
        served(Watched(padding=100_000), QUICK) as client,
        connected(client) as (_, writer),
        asyncio.timeout(PATIENCE),
    ):
        with pytest.raises(ConnectionError):
            await send_on(writer)


async def test_idle_connections_do_not_keep_prometheus_out() -> None:
    """Of very many idle connections the oldest are closed, and a scrape is answered at once."""
    bounds = Bounds(deadline=30, connections=50)
    async with served(bounds=bounds) as client, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(client)) for _ in range(200)]
        async with asyncio.timeout(PATIENCE):
            assert (await client.get("/metrics")).status_code == 200
            for reader, _ in idle[:150]:
                assert await reader.read() == b""
        assert not any(reader.at_eof() for reader, _ in idle[151:])


_SERVING = """
import asyncio, signal
from tests.support.web import Watched, served

async def run():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with served(Watched(padding=20_000_000)) as client:
        print(client.base_url.port, flush=True)
        await stop.wait()

asyncio.run(run())
"""


@pytest.mark.slow
async def test_leaving_closes_every_connection_in_time() -> None:
    """A process that serves ends soon after SIGTERM although hostile clients hold connections."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVING, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout
    port = int(await process.stdout.readline())
    async with AsyncExitStack() as stack:
        for request in (b"", b"GET /", SCRAPE, SCRAPE, SCRAPE * 50) * 5:
            client = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
            client.sendall(request)
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert (process.returncode, errors) == (0, b"")


def test_port_in_use_is_told_with_its_address() -> None:
    """A second listener on a port fails at once, and the message names the address and the reason."""
    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = re.escape(f"cannot listen on 127.0.0.1:{port}: Address already in use")
        with pytest.raises(CannotListenError, match=f"^{message}$"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(("host", "place"), [("no..host", "no..host:80"), ("2001:db8::1", r"\[2001:db8::1\]:80")])
def test_foreign_address_is_refused(host: str, place: str) -> None:
    """A host that is unknown or not this machine's is an error that names it."""
    with pytest.raises(CannotListenError, match=f"^cannot listen on {place}: \\w"):
        bind(host, 80)


def test_ipv6_wildcard_takes_ipv4_too() -> None:
    """Listening on `::` answers clients of both families, and the address is written with brackets."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with closing(bind("::", 0)) as listener:
        port = listener.getsockname()[1]
        assert url(listener) == f"http://[::]:{port}"
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()


def test_an_empty_host_is_every_interface() -> None:
    """`:9488` is a usual way to write it."""
    with bind("", 0) as listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
        pass
