"""Who may log in: passwords against their bcrypt hashes, at a bounded cost.

bcrypt is slow by design, so one check runs at a time, on a thread of its own, and few may wait for it, of one address
fewer still: whoever guesses keeps nobody else out. A pair that was right is remembered, by a digest under a key that
never leaves this process, so that whoever is logged in does not wait at all.
"""

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import bcrypt

_WAITING = 8
_WAITING_OF_ONE = 2
#: bcrypt reads no further; what is longer would be as good as its beginning.
_LONGEST_PASSWORD = 72
_HEAD = 29  # of a hash: version, cost and salt


class NotNowError(Exception):
    """So many checks are under way that no other is begun, or these users are those of no configuration any more."""


class Logins:
    """The users of one configuration."""

    def __init__(self, users: Mapping[str, str]) -> None:
        """Take bcrypt hashes by user, at least one."""
        self._hashes = {user.encode(): of.encode() for user, of in users.items()}
        # For users that there are not: as dear as the dearest there is, and right for no password.
        dearest = max(self._hashes.values(), key=lambda each: each[4:6])
        self._nobodys = dearest[:_HEAD] + secrets.token_hex(16)[:31].encode()
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, bytes] = {}
        #: Who waits for what, by address.
        self._waiting: dict[asyncio.Future[bool], str] = {}
        self._closed = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")

    async def right(self, user: bytes, password: bytes, *, asker: str) -> bool:
        """Tell an address whether this is the user's password; NotNowError, at once, when that cannot be told."""
        if len(password) > _LONGEST_PASSWORD or b"\0" in password:
            return False
        digest = hmac.digest(self._key, password, "sha256")
        if hmac.compare_digest(self._remembered.get(user, b""), digest):
            return True
        of_one = sum(who == asker for who in self._waiting.values())
        if self._closed or len(self._waiting) >= _WAITING or of_one >= _WAITING_OF_ONE:
            raise NotNowError
        right = await self._checked(password, self._hashes.get(user, self._nobodys), asker) and user in self._hashes
        if right:
            self._remembered[user] = digest
        return right

    def close(self) -> None:
        """Let nobody wait any longer, with NotNowError; a check that is under way ends by itself."""
        self._closed = True
        self._worker.shutdown(wait=False, cancel_futures=True)
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(NotNowError)

    async def _checked(self, password: bytes, against: bytes, asker: str) -> bool:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()

        def done(check: Future[bool]) -> None:
            if not check.cancelled():
                with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                    loop.call_soon_threadsafe(_pass_on, check, answer)

        self._waiting[answer] = asker
        try:
            self._worker.submit(bcrypt.checkpw, password, against).add_done_callback(done)
            return await answer
        finally:
            del self._waiting[answer]


def _pass_on(check: Future[bool], answer: "asyncio.Future[bool]") -> None:
    if answer.done():
        return
    if error := check.exception():
        answer.set_exception(error)
    else:
        answer.set_result(check.result())
