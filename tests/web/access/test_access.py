"""Who is let in."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.certificates import hashed, write_plain_config
from tests.support.guarded_server import LOGIN, PASSWORD, PATIENCE, SLOW, basic, guarded, status

#: These tests serve HTTP with slow passwords and deadlines.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert that whatever clients send, the log has no warning and no traceback."""
    yield
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


@pytest.mark.promise("Where logins are configured, nobody is answered without one.")
async def test_only_a_right_password_is_answered(tmp_path: Path) -> None:
    """Every path needs user and password, except the two probes; the refusal says how to log in."""
    file = write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD), "ops": hashed("other")})
    async with guarded(file) as client:
        for path in ("/", "/metrics", "/api/v1/leaks", "/nowhere"):
            assert await status(client, path=path) == 401
            assert await status(client, LOGIN, path=path) == 200
        for path in ("/healthz", "/readyz"):
            assert await status(client, path=path) == await status(client, ("no", "no"), path=path) == 200
        for login in (("prometheus", "other"), ("ops", PASSWORD), ("nobody", PASSWORD), ("prometheus", "")):
            assert await status(client, login) == 401
        assert await status(client, ("ops", "other")) == 200
        challenge = (await client.get("/")).headers["WWW-Authenticate"]
        assert challenge == 'Basic realm="pgwatch-sessions", charset="UTF-8"'


@pytest.mark.parametrize(
    "fields",
    [
        ["Basic"],
        ["Basic !!!"],
        [basic(b"no colon")],
        ["Basic cHJvbWV0aGV1czpodW50ZXIy\u00e9"],
        ["Bearer cHJvbWV0aGV1czpodW50ZXIy"],
        ["Basic cHJvbWV0aGV1czpodW50ZXIy", "Basic cHJvbWV0aGV1czpodW50ZXIy"],
        [basic(b"\xff\xfe:\x00")],
        [basic(b"prometheus:" + b"x" * 5000)],
        [basic(b"prometheus:hunter2\x00")],
        [""],
    ],
)
async def test_an_invalid_header_is_401(tmp_path: Path, fields: list[str]) -> None:
    """So is a header that is given twice, even if it is right."""
    async with guarded(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD)})) as client:
        headers = [(b"Authorization", field.encode("latin-1")) for field in fields]
        assert (await client.get("/metrics", headers=headers)).status_code == 401


async def test_names_and_passwords_may_have_any_characters(tmp_path: Path) -> None:
    """They are UTF-8, as the challenge says. Colons belong to the password; an empty password is one, too."""
    users = {"jürgen": hashed("pä:ß:"), "empty": hashed("")}
    async with guarded(write_plain_config(tmp_path, users=users)) as client:

        async def answer(login: bytes) -> int:
            return await status(client, Authorization=basic(login).replace("Basic ", "bASIC  "))

        assert await answer("jürgen:pä:ß:".encode()) == 200
        assert await answer("jürgen:pä:ß:".encode("latin-1")) == 401
        assert await answer("jürgen:pä".encode()) == 401
        assert await answer(b"empty:") == 200
        assert await answer(b"empty") == 401
        assert await answer(b":") == 401


@pytest.mark.promise("Where logins are configured, nobody is answered without one.")
@pytest.mark.parametrize(
    "target",
    [
        *("//healthz", "/healthz/", "/healthz/../metrics", "/healthz%2f..%2fmetrics", "http://a/healthz", "/HEALTHZ"),
        *("/healthz%0A", "/metrics%0A", "/./metrics", "/metrics#/healthz", "/metrics?/healthz", "/healthz;/x", "*"),
    ],
)
async def test_no_other_spelling_of_a_path_needs_no_password(tmp_path: Path, target: str) -> None:
    """The probes are open under exactly their paths, whatever the method and the Host header are."""
    async with guarded(write_plain_config(tmp_path, users={"u": hashed(PASSWORD)})) as client:
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            writer.write(f"{method} {target} HTTP/1.1\r\nHost: /healthz\r\nConnection: close\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
            writer.transport.abort()


async def test_a_flood_of_wrong_passwords_does_not_delay_a_client_that_has_logged_in(tmp_path: Path) -> None:
    """Few checks may wait; further ones get 429 with Retry-After at once. The event loop keeps its pace."""
    async with guarded(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD, SLOW)})) as client:
        assert await status(client, LOGIN) == 200
        guesses = [asyncio.create_task(client.get("/", auth=("prometheus", f"{n}"))) for n in range(30)]
        await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
        for _ in range(20):
            async with asyncio.timeout(0.5):
                assert await status(client, LOGIN) == 200
        assert not all(guess.done() for guess in guesses), "the flood ended before it was tested"
        answers = [guess.result() for guess in guesses if guess.done()]
        assert {answer.status_code for answer in answers} <= {401, 429}
        assert next(answer for answer in answers if answer.status_code == 429).headers["Retry-After"] == "1"
        for guess in guesses:
            guess.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)


async def test_guesses_from_one_address_do_not_keep_others_out(tmp_path: Path) -> None:
    """Not even a client that has not logged in yet."""

    async def guess_on(client: httpx.AsyncClient) -> None:
        while True:
            await status(client, ("prometheus", "wrong"))

    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    file = write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD, SLOW)})
    async with guarded(file) as client, httpx.AsyncClient(base_url=client.base_url, transport=elsewhere) as other:
        guesses = [asyncio.create_task(guess_on(client)) for _ in range(20)]
        async with asyncio.timeout(PATIENCE):
            while await status(client, ("prometheus", "wrong")) != 429:
                pass
        assert (await other.get("/metrics", auth=LOGIN, timeout=PATIENCE)).status_code == 200
        for guess in guesses:
            guess.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)


async def test_the_server_stops_without_waiting_for_passwords(tmp_path: Path) -> None:
    """Requests that wait for a check are dropped, without a traceback in the log."""
    file = write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD, 13)})
    async with httpx.AsyncClient(timeout=30) as client:
        async with guarded(file) as served:
            address = served.base_url.join("/metrics")
            requests = [asyncio.create_task(client.get(address, auth=("u", f"{n}"))) for n in range(3)]
            (refused,), waiting = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
            assert refused.result().status_code == 429
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert any(isinstance(answer, httpx.RemoteProtocolError | httpx.ReadError) for answer in answers), answers
