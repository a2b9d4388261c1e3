"""Names under which the page is answered: a foreign page in somebody's browser cannot read it."""

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse

from pgwatch_sessions.web.host_names import host_guard, is_loopback

PAGE = PlainTextResponse("the page")


def answer(host: str, *allowed: str, path: str = "/", needed: bool = True) -> httpx.Response:
    """Return the answer to a request with this Host header."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(host_guard(allowed, needed=lambda: needed)(PAGE))
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.get(f"http://ignored{path}", headers={"Host": host})

    return asyncio.run(asked())


def status(host: str, *allowed: str, path: str = "/", needed: bool = True) -> int:
    """Return the status of that answer."""
    return answer(host, *allowed, path=path, needed=needed).status_code


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:9488", "localhost.:80", "127.0.0.1", "127.0.0.1:9488", "127.3.2.1", "[::1]", "[::1]:1"],
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    """With any port: a tunnel may have another one."""
    assert status(host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:9488",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
        ),
        *(
            "localhost:80:80",
            "localhost evil",
            "user@localhost",
            "localhost/",
            "[::1",
            "[::2]",
            "::1",
            "",
            ":9488",
            "*",
        ),
    ],
)
def test_other_names_are_refused(host: str) -> None:
    """Metrics and probes, which show no statement, are answered under any name."""
    assert status(host) == status(host, "") == 421
    assert status(host, path="/api/v1/sessions") == 421
    for path in ("/metrics", "/healthz", "/readyz"):
        assert status(host, path=path) == 200


def test_the_refusal_names_the_setting() -> None:
    """And nothing that the client has sent."""
    text = answer("evil.example").text
    assert "add the name to the setting allowed_hosts" in text
    assert "evil" not in text


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("db-monitor.example:9488", "db-monitor.example"),
        ("Monitor.Internal", "*.internal"),
        ("monitor.internal", "MONITOR.*"),
        ("[fe80::1]:9488", "[fe80::1]"),
        ("[fe80::1]:9488", "fe80::*"),
        ("anything", "*"),
    ],
)
def test_allowed_names_are_answered(host: str, allowed: str) -> None:
    """They are shell patterns, in upper or lower case."""
    assert status(host) == 421
    assert status(host, "other", allowed) == 200
    assert status("evil.example", allowed) == (200 if allowed == "*" else 421)


def test_names_do_not_matter_where_clients_log_in() -> None:
    """A page of others has no password and no certificate."""
    assert status("evil.example", needed=False) == 200


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("::", False)]
)
def test_loopback_is_known(host: str, *, expected: bool) -> None:
    """In both families."""
    assert is_loopback(host) is expected
