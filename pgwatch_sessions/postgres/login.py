"""What a server may ask for before it lets us in, checked before the driver answers.

asyncpg answers every request. If the server, or a program in between, asks for the password in clear text, asyncpg
sends it, with TLS or without, and has no option that forbids this. libpq has one: require_auth. So the messages of a
server are read here until it lets us in.
"""

from collections.abc import Collection
from dataclasses import dataclass

import asyncpg

#: By the number in the server's message, libpq's name in require_auth.
_METHODS = {3: "password", 5: "md5", 7: "gss", 9: "sspi", 10: "scram-sha-256"}
_LET_IN = 0
#: The server's proof that it knows the password too.
_SCRAM_PROVEN = 12
#: A message is a letter, its length in four bytes without the letter, and its body.
_HEADER = 5
#: What a server may send before it lets us in, beside an error: requests, its version of the protocol, notices.
_KINDS = frozenset(b"RvN")
#: In bytes. libpq takes no longer message before the login either.
_LONGEST = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRules:
    """Which ways to log in are allowed."""

    #: libpq's require_auth as methods; `none` is a server that asks for nothing. None allows all.
    methods: Collection[str] | None = None
    #: Whether the password may be sent in clear text without TLS.
    cleartext: bool = False


class LoginRefusedError(asyncpg.InvalidAuthorizationSpecificationError):
    """We do not log in in the way that the server asks for. Nothing was sent."""


class NoPostgresError(asyncpg.InternalClientError):
    """What answers does not speak PostgreSQL's protocol. The driver would wait for the rest of its message."""


class LoginCheck:
    """Reads what one server sends, until it lets us in."""

    def __init__(self, rules: LoginRules, *, private: bool) -> None:
        """Take the rules. `private` says that nobody can listen: TLS, or a Unix socket."""
        self._rules = rules
        self._private = private
        self._unread = bytearray()
        self._method = "none"
        self._proven = False
        #: Whether the server has let us in, or refused to.
        self.over = False

    def read(self, data: bytes) -> None:
        """Read what came.

        LoginRefusedError at the first request that the rules do not allow, NoPostgresError if it is no login.
        """
        self._unread += data
        while not self.over and len(self._unread) >= _HEADER:
            if self._unread[:1] == b"E":
                self.over = True  # it does not let us in, and the driver says why
                return
            end = max(_HEADER, 1 + int.from_bytes(self._unread[1:_HEADER], "big"))
            if self._unread[0] not in _KINDS or end > _LONGEST:
                raise NoPostgresError("the answer is no login of PostgreSQL; is this a PostgreSQL server?")
            if len(self._unread) < end:
                return
            if self._unread[:1] == b"R":
                self._check(int.from_bytes(self._unread[_HEADER : _HEADER + 4], "big"))
            del self._unread[:end]

    def _check(self, request: int) -> None:
        rules = self._rules
        self._method = _METHODS.get(request, self._method)
        self._proven |= request == _SCRAM_PROVEN
        if self._method == "password" and not self._private and not rules.cleartext:
            raise LoginRefusedError(
                "the server asks for the password in clear text, without TLS, so it was not sent: use "
                "sslmode=verify-full, or scram-sha-256 in the server's pg_hba.conf, or set allow_cleartext_password"
            )
        self.over = request == _LET_IN
        if rules.methods is None or not (self.over or request in _METHODS):
            return
        if self._method not in rules.methods:
            asks = "lets us in without a login" if self._method == "none" else f"asks for {self._method}"
            raise LoginRefusedError(
                f"the server {asks}, and require_auth allows only {', '.join(sorted(rules.methods)) or 'nothing'}: "
                "change require_auth, or the server's pg_hba.conf"
            )
        if self.over and self._method == "scram-sha-256" and not self._proven:
            raise LoginRefusedError("the server has not proven that it knows the password, as require_auth asks")
