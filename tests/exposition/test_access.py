"""Who is let in, and with which headers."""

import asyncio
import base64
import logging
from pathlib import Path

import httpx
import pytest

from pgwatch_sessions.exposition.access import Access
from tests.exposition.certificates import (
    hashed,
    write_plain_config,
)
from tests.exposition.guarded import DEAR, LOGIN, PASSWORD, guarded, status
from tests.web.test_app import PATHS, PATIENCE


def test_only_who_knows_the_password_is_answered(tmp_path: Path) -> None:
    """Each address but the two probes asks for user and password; the refusal tells how, and nothing else."""

    async def run() -> None:
        access = Access(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD), "ops": hashed("other")}))
        async with guarded(access) as client:
            for path in ("/", "/nowhere", *PATHS):
                open_to_all = path in {"/healthz", "/readyz"}
                refused = await client.get(path)
                assert refused.status_code == (200 if open_to_all else 401)
                assert ("WWW-Authenticate" in refused.headers) != open_to_all
                assert refused.headers["Cache-Control"] == "no-store"
                assert await status(client, path, LOGIN) == (404 if path == "/nowhere" else 200)
            for login in (("prometheus", "other"), ("ops", PASSWORD), ("nobody", PASSWORD), ("prometheus", "")):
                assert await status(client, auth=login) == 401
            assert await status(client, auth=("ops", "other")) == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    "fields",
    [
        ["Basic"],
        ["Basic !!!"],
        ["Basic " + base64.b64encode(b"no colon").decode()],
        ["Basic cHJvbWV0aGV1czpodW50ZXIy\u00e9"],
        ["Bearer cHJvbWV0aGV1czpodW50ZXIy"],
        ["Basic cHJvbWV0aGV1czpodW50ZXIy", "Basic cHJvbWV0aGV1czpodW50ZXIy"],
        ["Basic " + base64.b64encode(b"\xff\xfe:\x00").decode()],
        ["Basic " + base64.b64encode(b"prometheus:" + b"x" * 5000).decode()],
        ["Basic " + base64.b64encode(b"prometheus:hunter2\x00").decode()],
        [""],
    ],
)
def test_nonsense_is_no_login(tmp_path: Path, fields: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever stands in the header, it is 401, and nothing in the log."""

    async def run() -> None:
        access = Access(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD)}))
        async with guarded(access) as client:
            headers = [(b"Authorization", field.encode("latin-1")) for field in fields]
            assert (await client.get("/metrics", headers=headers)).status_code == 401

    asyncio.run(run())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_the_scheme_is_read_in_either_case(tmp_path: Path) -> None:
    """`basic` is as good as `Basic`."""

    async def run() -> None:
        access = Access(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD)}))
        async with guarded(access) as client:
            headers = {"Authorization": f"bASIC  {base64.b64encode(':'.join(LOGIN).encode()).decode()}"}
            assert (await client.get("/metrics", headers=headers)).status_code == 200

    asyncio.run(run())


def test_a_flood_of_wrong_logins_keeps_neither_the_loop_nor_who_is_logged_in(tmp_path: Path) -> None:
    """Beyond a short queue the answer is 429 at once, with Retry-After; whoever was right before is served."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        access = Access(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD, DEAR)}))
        async with guarded(access) as client:
            assert await status(client, auth=LOGIN) == 200
            guesses = [asyncio.create_task(client.get("/", auth=("prometheus", f"{n}"))) for n in range(30)]
            await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
            late = 0.0
            for _ in range(20):
                asked = loop.time()
                assert await status(client, auth=LOGIN) == 200
                late = max(late, loop.time() - asked)
            assert not all(guess.done() for guess in guesses), "the flood was over before it was tried"
            assert late < 0.5
            refused = [guess.result() for guess in guesses if guess.done()]
            assert {answer.status_code for answer in refused} <= {401, 429}
            crowded = next(answer for answer in refused if answer.status_code == 429)
            assert crowded.headers["Retry-After"] == "1"
            for guess in guesses:
                guess.cancel()
            await asyncio.gather(*guesses, return_exceptions=True)

    asyncio.run(run())


def test_who_guesses_keeps_nobody_at_another_address_out(tmp_path: Path) -> None:
    """Not even from a first login, which is not remembered yet."""

    async def guess_on(client: httpx.AsyncClient) -> None:
        while True:
            await status(client, auth=("prometheus", "wrong"))

    async def run() -> None:
        access = Access(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD, DEAR)}))
        elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with guarded(access) as client, httpx.AsyncClient(base_url=client.base_url, transport=elsewhere) as other:
            guesses = [asyncio.create_task(guess_on(client)) for _ in range(20)]
            await until_status(client, 429)
            assert (await other.get("/metrics", auth=LOGIN, timeout=PATIENCE)).status_code == 200
            for guess in guesses:
                guess.cancel()
            await asyncio.gather(*guesses, return_exceptions=True)

    asyncio.run(run())


async def until_status(client: httpx.AsyncClient, expected: int) -> None:
    """Guess until the answer is the expected one."""
    async with asyncio.timeout(PATIENCE):
        while await status(client, auth=("prometheus", "wrong")) != expected:
            pass


def test_a_login_that_comes_at_the_end_is_put_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Between the end of logins and that of the connections: 429, and no traceback."""

    async def run() -> None:
        access = Access(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD)}))
        async with guarded(access) as client:
            access.close()
            assert (await client.get("/metrics", auth=LOGIN)).status_code == 429
            assert (await client.get("/metrics")).status_code == 401
            assert (await client.get("/healthz")).status_code == 200

    asyncio.run(run())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_names_and_passwords_may_have_any_letters(tmp_path: Path) -> None:
    """In UTF-8, as the challenge says; colons belong to the password; an empty password is one."""
    users = {"jürgen": hashed("pä:ß:"), "empty": hashed("")}

    async def run() -> None:
        async with guarded(Access(write_plain_config(tmp_path, users=users))) as client:

            async def answer(login: bytes) -> int:
                headers = {"Authorization": f"Basic {base64.b64encode(login).decode()}"}
                return (await client.get("/metrics", headers=headers)).status_code

            assert await answer("jürgen:pä:ß:".encode()) == 200
            assert await answer("jürgen:pä:ß:".encode("latin-1")) == 401
            assert await answer("jürgen:pä".encode()) == 401
            assert await answer(b"empty:") == 200
            assert await answer(b"empty") == 401
            assert await answer(b":") == 401

    asyncio.run(run())


@pytest.mark.parametrize(
    "target",
    [
        *(
            "//healthz",
            "/healthz/",
            "/healthz/../metrics",
            "/healthz%2f..%2fmetrics",
            "http://a/healthz",
            "/healthz%0A",
        ),
        *("/metrics%0A", "/./metrics", "/metrics#/healthz", "/metrics?/healthz", "/healthz;/metrics", "/HEALTHZ", "*"),
    ],
)
def test_no_spelling_of_an_address_goes_round_the_password(tmp_path: Path, target: str) -> None:
    """The probes are open by exactly their names, whatever the method, and whatever Host says."""

    async def run() -> None:
        async with guarded(Access(write_plain_config(tmp_path, users={"u": hashed(PASSWORD)}))) as client:
            for method in ("GET", "HEAD", "POST", "OPTIONS"):
                host = str(client.base_url.host)
                reader, writer = await asyncio.open_connection(host, client.base_url.port)
                head = f"{method} {target} HTTP/1.1\r\nHost: /healthz\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
                assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
                writer.transport.abort()

    asyncio.run(run())


def test_headers_are_added_and_replace_ours(tmp_path: Path) -> None:
    """On every answer, refusals included; an empty one changes nothing."""
    more = """\
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=600
    Content-Security-Policy: default-src 'none'
    X-Content-Type-Options: ''
"""

    async def run() -> None:
        access = Access(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD)}, more=more))
        async with guarded(access) as client:
            for auth in (LOGIN, None):
                headers = (await client.get("/", auth=auth)).headers
                assert headers["X-Frame-Options"] == "deny"
                assert headers["Strict-Transport-Security"] == "max-age=600"
                assert headers["Content-Security-Policy"] == "default-src 'none'"
                assert headers["X-Content-Type-Options"] == "nosniff"

    asyncio.run(run())


# --- changes ---


def test_the_second_address_has_metrics_and_probes_only(tmp_path: Path) -> None:
    """Nothing of the page or the documents; 404 names what there is; passwords count there as well."""

    async def run() -> None:
        access = Access(write_plain_config(tmp_path, users={"prometheus": hashed(PASSWORD)}))
        async with guarded(access, only_metrics=True) as client:
            for path in ("/metrics", "/healthz", "/readyz"):
                assert await status(client, path, LOGIN) == 200
            for path in ("/", "/api/v1/leaks", "/api/v1/sessions", "/api/v1/diagnosis"):
                answer = await client.get(path, auth=LOGIN)
                assert answer.status_code == 404
                assert answer.text == "Nothing here. Known addresses: /metrics, /healthz, /readyz\n"
            assert await status(client) == 401

    asyncio.run(run())
