"""Passwords, headers, and a web configuration that changes while it is in use."""

import asyncio
import base64
import json
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pgwatch_sessions.exposition.access import Access
from pgwatch_sessions.exposition.http_server import bind, serving, url
from pgwatch_sessions.exposition.logins import Logins, NotNowError
from pgwatch_sessions.exposition.web import metrics_app, web_app
from tests.exposition.certificates import (
    OURS,
    authority,
    hashed,
    write_certificate,
    write_plain_config,
    write_web_config,
)
from tests.exposition.test_web import PATHS, PATIENCE, Watched, passed

PASSWORD = "hunter2"
LOGIN = ("prometheus", PASSWORD)
#: One check takes a good part of a second.
DEAR = 12


@asynccontextmanager
async def guarded(access: Access, *, only_metrics: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    """Serve by the access's rules, and give a client that trusts our certificates."""
    watched = Watched()
    registry = CollectorRegistry()
    registry.register(watched)
    if only_metrics:
        app = metrics_app(
            registry=registry, states=lambda: watched.state, health=passed, readiness=passed, access=access
        )
    else:
        app = web_app(
            version="1.2.3",
            registry=registry,
            states=lambda: watched.state,
            health=passed,
            readiness=passed,
            access=access,
        )
    listener = bind("127.0.0.1", 0)
    trust = ssl.create_default_context()
    authority(OURS).configure_trust(trust)
    tls = access.tls if access.scheme == "https" else None
    async with (
        serving(app, listener, tls=tls),
        httpx.AsyncClient(base_url=url(listener, scheme=access.scheme), verify=trust, timeout=30) as client,
    ):
        try:
            yield client
        finally:
            access.close()


async def status(client: httpx.AsyncClient, path: str = "/metrics", auth: tuple[str, str] | None = None) -> int:
    """Ask, and return the status; each time on a connection of its own."""
    return (await client.get(path, auth=auth, headers={"Connection": "close"})).status_code


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


@pytest.mark.parametrize("length", [72, 73, 1000])
def test_a_password_beyond_what_bcrypt_reads_is_wrong(length: int) -> None:
    """Not an error, and not as good as its first 72 bytes."""

    async def run() -> bool:
        logins = Logins({"u": hashed("x" * 72)})
        try:
            return await logins.right(b"u", b"x" * length, asker="a")
        finally:
            logins.close()

    assert asyncio.run(run()) is (length == 72)


def test_an_unknown_user_costs_what_a_wrong_password_does() -> None:
    """Who there is cannot be told from how long the refusal takes."""

    async def seconds(logins: Logins, user: bytes) -> float:
        begun = time.perf_counter()
        assert not await logins.right(user, b"wrong", asker="a")
        return time.perf_counter() - begun

    async def run() -> tuple[list[float], list[float]]:
        logins = Logins({"known": hashed(PASSWORD, cost=9)})
        try:
            assert await logins.right(b"known", PASSWORD.encode(), asker="a")
            known, unknown = [], []
            for _ in range(9):
                known.append(await seconds(logins, b"known"))
                unknown.append(await seconds(logins, b"unknown"))
            return known, unknown
        finally:
            logins.close()

    known, unknown = asyncio.run(run())
    assert min(unknown) > min(known) / 2
    assert min(known) > min(unknown) / 2
    assert min(known) > 0.005, "no check was made"


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


def test_the_end_waits_for_no_login() -> None:
    """Whoever waits in the queue is told so at once, as is who comes later; what is being checked ends unheard."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        logins = Logins({"u": hashed(PASSWORD, DEAR)})
        waiting = [asyncio.create_task(logins.right(b"u", b"%d" % n, asker=f"{n % 4}")) for n in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(NotNowError):
            await logins.right(b"u", b"one too many", asker="another")
        closing = loop.time()
        logins.close()
        answers = await asyncio.gather(*waiting, logins.right(b"u", b"late", asker="another"), return_exceptions=True)
        assert [type(answer) for answer in answers] == [NotNowError] * 9
        assert loop.time() - closing < 0.1

    asyncio.run(run())


def test_a_check_that_fails_keeps_no_place_in_the_queue() -> None:
    """It is raised to whoever asks, so that it is answered and logged, and the next is checked."""

    async def run() -> None:
        logins = Logins({"broken": f"$2b$04${'9' * 53}", "u": hashed(PASSWORD)})
        try:
            async with asyncio.timeout(PATIENCE):
                for _ in range(9):
                    with pytest.raises(ValueError, match="Invalid salt"):
                        await logins.right(b"broken", b"x", asker="a")
                assert await logins.right(b"u", PASSWORD.encode(), asker="a")
        finally:
            logins.close()

    asyncio.run(run())


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
    """TLS and passwords are not switched off while the daemon runs: that would look just like this."""

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
