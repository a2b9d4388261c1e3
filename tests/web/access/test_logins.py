import time

import pytest

from pgwatch_sessions.web.access.logins import Logins
from tests.support.certificates import hashed

#: These tests serve HTTP with slow passwords and deadlines.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("length", [72, 73, 1000])
async def test_a_password_longer_than_72_bytes_is_wrong(length: int) -> None:
    """The library reads 72 bytes. A longer password is neither an error nor as good as its beginning."""
    assert await Logins({"u": hashed("x" * 72)}).check(b"u", b"x" * length, address="a") is (length == 72)


async def test_a_password_with_a_nul_byte_is_wrong() -> None:
    """The library would raise an exception."""
    assert not await Logins({"u": hashed("x")}).check(b"u", b"x\0", address="a")


async def test_an_unknown_user_takes_as_long_as_a_wrong_password() -> None:
    """The time of a refusal does not tell which users exist, not even if the password is right for another user."""
    logins = Logins({"known": hashed("right", cost=9)})
    seconds: dict[bytes, list[float]] = {b"known": [], b"unknown": []}
    for attempt in range(9):
        for user, durations in seconds.items():
            begun = time.process_time()
            assert not await logins.check(user, b"wrong%d" % attempt, address="a")
            durations.append(time.process_time() - begun)
    known, unknown = min(seconds[b"known"]), min(seconds[b"unknown"])
    assert 0.005 < known < 2 * unknown
    assert unknown < 2 * known
    assert not await logins.check(b"unknown", b"right", address="a")


async def test_a_right_password_is_checked_once() -> None:
    """It is remembered, for its user only; a wrong password is checked each time."""
    logins = Logins({"a": hashed("same", cost=9), "b": hashed("other")})
    assert await logins.check(b"a", b"same", address="a")
    begun = time.process_time()
    assert await logins.check(b"a", b"same", address="a")
    assert time.process_time() - begun < 0.005
    assert not await logins.check(b"b", b"same", address="a")
    assert not await logins.check(b"a", b"other", address="a")
