import asyncio
import base64
import gzip
import hashlib
import re
from urllib.parse import urljoin

import pytest

from pgwatch_sessions.web.app import Health
from tests.support.web import (
    PATHS,
    Watched,
    answer_to,
    served,
)

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


@pytest.mark.promise("HTTP clients can neither stop nor delay it.")
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
        assert page.text.count("<script") == 1
        links = re.findall(r'href="([^"]*)"', page.text)
        assert links == ["?refresh=off", *(path.lstrip("/") for path in PATHS)]
        assert {(await client.get(urljoin("/", link))).status_code for link in links} == {200}
        policy = page.headers["Content-Security-Policy"]
        style, script = (
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for text in re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", page.text, re.DOTALL)
        )
        assert policy.startswith(f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; ")
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


@pytest.mark.promise("HTTP clients can neither stop nor delay it.")
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
