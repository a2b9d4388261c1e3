"""Checks of passwords against bcrypt hashes, at a bounded cost.

bcrypt is slow by design. So one check runs at a time, in a thread of its own, and few requests may wait for it. Fewer
still may come from one address, so that somebody who guesses passwords does not keep others out. A right password is
remembered, as a digest under a key that never leaves this process: a client that has logged in does not wait again.
"""

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import bcrypt

_MAX_WAITING = 8
_MAX_WAITING_PER_ADDRESS = 2
#: bcrypt ignores what is longer, so a longer password would be as good as its beginning.
_MAX_PASSWORD_BYTES = 72


class TooManyLoginsError(Exception):
    """No check is begun, because too many are waiting."""


class Logins:
    """The users of one configuration."""

    def __init__(self, users: Mapping[str, str]) -> None:
        """`users` are bcrypt hashes by name, at least one."""
        self._hashes = {user.encode(): bcrypt_hash.encode() for user, bcrypt_hash in users.items()}
        #: An unknown user is checked against it, and so costs as much time as a known one.
        self._slowest = max(self._hashes.values(), key=lambda bcrypt_hash: bcrypt_hash[4:6])
        self._key = secrets.token_bytes(32)
        self._remembered: set[bytes] = set()
        #: The address of each request that waits.
        self._waiting: list[str] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")

    async def check(self, user: bytes, password: bytes, *, address: str) -> bool:
        """Return whether this is the user's password; raise TooManyLoginsError if too many requests wait already."""
        if len(password) > _MAX_PASSWORD_BYTES or b"\0" in password:
            return False
        digest = hmac.digest(self._key, user + b":" + password, "sha256")  # a user's name has no colon
        if digest in self._remembered:
            return True
        if len(self._waiting) >= _MAX_WAITING or self._waiting.count(address) >= _MAX_WAITING_PER_ADDRESS:
            raise TooManyLoginsError
        self._waiting.append(address)
        try:
            bcrypt_hash = self._hashes.get(user, self._slowest)
            right = await asyncio.get_running_loop().run_in_executor(
                self._thread, bcrypt.checkpw, password, bcrypt_hash
            )
        finally:
            self._waiting.remove(address)
        if not right or user not in self._hashes:
            return False
        self._remembered.add(digest)
        return True
