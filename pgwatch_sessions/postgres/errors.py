"""What a poll can fail with, as a Failure: every error that comes of talking to a server has a reason."""

import errno
import re
import ssl

import asyncpg

from pgwatch_sessions.core.model import Failure, FailureReason, LimitScope
from pgwatch_sessions.postgres.roles import NoHostWithRoleError


class PasswordUnreadableError(asyncpg.InvalidPasswordError):
    """The password file cannot be read now."""


class PasswordMissingError(asyncpg.InvalidPasswordError):
    """The server asks for a password, and we have none."""


class ConnectionParametersError(asyncpg.ClientConfigurationError):
    """The DSN or libpq's variables do not make sense. Never quotes them: a password may be part of what is wrong."""


#: The first match counts, so a class comes before its parents.
_REASONS: tuple[tuple[type[Exception], FailureReason], ...] = (
    (asyncpg.TooManyConnectionsError, FailureReason.EXHAUSTED),
    (asyncpg.InvalidAuthorizationSpecificationError, FailureReason.AUTHENTICATION),
    (asyncpg.CannotConnectNowError, FailureReason.STARTING_UP),
    (asyncpg.QueryCanceledError, FailureReason.TIMEOUT),
    (asyncpg.LockNotAvailableError, FailureReason.TIMEOUT),
    (asyncpg.InsufficientPrivilegeError, FailureReason.PRIVILEGE),
    (asyncpg.ProtocolViolationError, FailureReason.PROTOCOL),
    (asyncpg.PostgresConnectionError, FailureReason.NETWORK),
    (
        asyncpg.OperatorInterventionError,
        FailureReason.NETWORK,
    ),  # shut down, crashed, terminated: the connection is gone
    (NoHostWithRoleError, FailureReason.WRONG_ROLE),
    (asyncpg.InternalClientError, FailureReason.PROTOCOL),
    (asyncpg.UnsupportedClientFeatureError, FailureReason.PROTOCOL),
    (asyncpg.ClientConfigurationError, FailureReason.OTHER),
    (asyncpg.PostgresError, FailureReason.OTHER),
    (asyncpg.InterfaceError, FailureReason.NETWORK),  # "connection is closed" and the like
    (TimeoutError, FailureReason.TIMEOUT),
    (OSError, FailureReason.NETWORK),
    # The driver trusts the server in places. What it raises there can be anything, such as LookupError for an unknown
    # encoding, or AttributeError for a greeting that lacks the version.
    (Exception, FailureReason.PROTOCOL),
)

#: A server may send a text of any length.
_LONGEST_TEXT = 300

#: The server raises SQLSTATE 53300 when it is full, and also when the limit of one role or one database is reached. Its
#: message is translated by lc_messages, but the name of the C function that raised it is not (utils/init/miscinit.c and
#: postinit.c of PostgreSQL 14 to 18).
_EXHAUSTED_SCOPES = {"InitializeSessionUserId": LimitScope.ROLE, "CheckMyDatabase": LimitScope.DATABASE}

# Codes of OpenSSL (x509_vfy.h): the certificate is for another name or address; no known authority has signed it.
_ANOTHER_HOST = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})
# The driver's words for a server that declines TLS.
_NO_TLS = re.compile(r'PostgreSQL server at "(?P<host>.*)" rejected SSL upgrade')
_TLS_WORDS = {
    "KEY_VALUES_MISMATCH": "the key (sslkey) does not fit the certificate (sslcert)",
    "NO_CERTIFICATE_OR_CRL_FOUND": "the file that sslrootcert names holds no certificate in PEM",
}


def failure_of(error: Exception, *, doing: str, lost: bool) -> Failure:
    """Say why a poll failed.

    `doing` is what the poll was doing, for the person who reads it. `lost` says that the connection is gone; the driver
    may report that as a fault of its own.
    """
    reason = next(reason for kind, reason in _REASONS if isinstance(error, kind))
    if lost and isinstance(error, asyncpg.InternalClientError):
        reason = FailureReason.NETWORK
    scope = None
    if reason is FailureReason.EXHAUSTED:
        scope = _EXHAUSTED_SCOPES.get(getattr(error, "server_source_function", None) or "", LimitScope.SERVER)
        reason = FailureReason.EXHAUSTED if scope is LimitScope.SERVER else FailureReason.OWN_LIMIT
    return Failure(reason=reason, detail=f"{doing}: {_said(error)}", exhausted_scope=scope)


def _said(error: Exception) -> str:
    """Say what went wrong in one line, and what to do about it where the error itself does not."""
    if isinstance(error, OSError) and (said := _said_of_tls(error)):
        return said
    said = " ".join(str(error).split("\n", maxsplit=1)[0].split())[:_LONGEST_TEXT] or type(error).__name__
    if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError | OSError):
        kind = type(error).__name__
        said = kind if isinstance(error, UnicodeError) else f"{kind}: {said}"  # a UnicodeError quotes what it read
        return f"unexpected {said}; is this a PostgreSQL server?"
    if isinstance(error, asyncpg.InvalidCatalogNameError):  # libpq's default is a database named like the role
        said += "; connect to any database that does: -d postgres, PGDATABASE=postgres, or in the DSN"
    if isinstance(error, asyncpg.ProtocolViolationError) and said.startswith("unsupported startup parameter"):
        said += "; that is a pooler: connect to PostgreSQL itself"
    return said


def _said_of_tls(error: OSError) -> str | None:
    """Return the words for what went wrong between connecting and the login; None if the error has its own."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = ""
        if error.verify_code in _ANOTHER_HOST:
            advice = "; connect by a name that the certificate has"
        elif error.verify_code in _UNKNOWN_AUTHORITY:
            advice = "; name the file of its authority's certificate as sslrootcert, or in PGSSLROOTCERT"
        return f"the server's certificate is refused: {error.verify_message.rstrip('.')}{advice}"
    if isinstance(error, ssl.SSLError):
        return _TLS_WORDS.get(error.reason)
    if error.errno == errno.ENOENT and error.filename is None:
        return "there is no file where sslrootcert, sslcert or sslkey, or their PGSSL variables, say; correct the path"
    if match := _NO_TLS.fullmatch(str(error)):
        return (
            f"{match['host']} does not support TLS (SSL), which sslmode asks for; use sslmode=prefer, or set ssl = on"
        )
    if str(error) == "unexpected connection_lost() call":
        return "the server closed the connection before it answered; is it PostgreSQL that listens there?"
    return None
