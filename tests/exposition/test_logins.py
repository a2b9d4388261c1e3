"""Checks of passwords: what they cost, and how many there are at a time."""

import asyncio
import time

import pytest

from pgwatch_sessions.exposition.logins import Logins, NotNowError
from tests.exposition.certificates import (
    hashed,
)
from tests.exposition.guarded import DEAR, PASSWORD
from tests.web.test_app import PATIENCE


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
