"""The HTTP server: its clients hold only a bounded part of the daemon, whatever they do."""

import asyncio
import logging
import re
import signal
import socket
import sys
from contextlib import AsyncExitStack, closing

import pytest

from pgwatch_sessions.web.crowd import Bounds, Refused
from pgwatch_sessions.web.http_server import CannotListenError, bind, url
from tests.support.web import (
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


@pytest.mark.promise("HTTP clients can neither stop nor delay it.")
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


@pytest.mark.promise("HTTP clients can neither stop nor delay it.")
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


@pytest.mark.promise("HTTP clients can neither stop nor delay it.")
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


@pytest.mark.promise("HTTP clients can neither stop nor delay it.")
async def test_idle_connections_do_not_keep_prometheus_out() -> None:
    """Of very many idle connections the oldest are closed, and a scrape is answered at once."""
    bounds = Bounds(deadline=30, connections=40, turned_away=10)
    async with served(bounds=bounds) as client, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(client)) for _ in range(200)]
        async with asyncio.timeout(PATIENCE):
            assert (await client.get("/metrics")).status_code == 200
            for reader, _ in idle[:150]:
                assert await reader.read() == b""
        assert not any(reader.at_eof() for reader, _ in idle[151:])


async def test_each_of_many_scrapes_at_once_gets_an_answer() -> None:
    """None is reset. Those for which there is no room are answered 503 with Retry-After, and counted."""
    refused = Refused()
    async with served(bounds=Bounds(connections=50, turned_away=150), refused=refused) as client:
        async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
            clients = [await stack.enter_async_context(connected(client)) for _ in range(200)]
            for _, writer in clients:
                writer.write(SCRAPE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            answers = [await reader.read() for reader, _ in clients]
        busy = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
        assert [answer[:15] for answer in answers if answer not in busy] == [b"HTTP/1.1 200 OK"] * (200 - len(busy))
        assert len(busy) == refused.counts["too_many"] == 150
        assert all(b"\r\nretry-after: 1\r\n" in answer for answer in busy)
        assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize(("seconds", "status"), [(60.0, 503), (0.0, 200)])
async def test_young_answers_are_not_interrupted(seconds: float, status: int) -> None:
    """While each connection has an answer that is not taken yet, a new one is turned away; older answers give way."""
    bounds, refused = Bounds(connections=2, young=seconds), Refused()
    async with (
        served(Watched(padding=20_000_000), bounds, refused=refused) as client,
        AsyncExitStack() as stack,
    ):
        for _ in range(2):
            reader, writer = await stack.enter_async_context(connected(client))
            writer.write(SCRAPE)
            assert await reader.readexactly(15) == b"HTTP/1.1 200 OK"
        assert (await client.get("/healthz")).status_code == status
    assert refused.counts["too_many"] == 1


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
