"""What a poll can fail with, as a Failure. Anything else is a fault of the program and is not caught."""

import errno
import ssl

import asyncpg

from pgwatch_sessions.core.model import Failure, FailureReason, LimitScope


class PasswordUnreadableError(asyncpg.InvalidPasswordError):
    """The password file cannot be read now."""


class ConnectionParametersError(asyncpg.ClientConfigurationError):
    """The DSN or libpq's variables do not make sense. Never quotes them: a password may be part of what is wrong."""


#: All that a server, or the way to it, can do to us.
EXPECTED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

#: The first match counts, so a class stands before its parents.
_REASONS: tuple[tuple[type[BaseException], FailureReason], ...] = (
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
    (asyncpg.TargetServerAttributeNotMatched, FailureReason.OTHER),
    (asyncpg.InternalClientError, FailureReason.PROTOCOL),
    (asyncpg.UnsupportedClientFeatureError, FailureReason.PROTOCOL),
    (asyncpg.ClientConfigurationError, FailureReason.OTHER),
    (asyncpg.PostgresError, FailureReason.OTHER),
    (asyncpg.InterfaceError, FailureReason.NETWORK),  # "connection is closed" and the like
    (TimeoutError, FailureReason.TIMEOUT),
    (OSError, FailureReason.NETWORK),
)

#: SQLSTATE 53300 also means that one role's or one database's own limit is reached. The message is translated by
#: lc_messages; the function that raised it is not (utils/init/miscinit.c and postinit.c of PostgreSQL 14 to 18).
_EXHAUSTED_SCOPES = {"InitializeSessionUserId": LimitScope.ROLE, "CheckMyDatabase": LimitScope.DATABASE}


# Codes of OpenSSL (x509_vfy.h): another name, another address; and nobody whom we know has signed it.
_ANOTHER_HOST = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})
_TLS_WORDS = {
    "KEY_VALUES_MISMATCH": "the key (sslkey) does not fit the certificate (sslcert)",
    "NO_CERTIFICATE_OR_CRL_FOUND": "the file that sslrootcert names holds no certificate in PEM",
}


def failure_of(error: BaseException, *, doing: str, lost: bool) -> Failure:
    """Say why a poll failed.

    `doing` is what it was about, for the human who reads it. `lost` tells that the connection is gone, which the
    driver may notice at a moment where it calls that a fault of its own.
    """
    reason = next(reason for kind, reason in _REASONS if isinstance(error, kind))
    if lost and isinstance(error, asyncpg.InternalClientError):
        reason = FailureReason.NETWORK
    scope = None
    if reason is FailureReason.EXHAUSTED:
        scope = _EXHAUSTED_SCOPES.get(getattr(error, "server_source_function", None) or "", LimitScope.SERVER)
    return Failure(reason=reason, detail=f"{doing}: {_said(error)}", exhausted_scope=scope)


def _said(error: BaseException) -> str:
    """Say what went wrong in one line, and what to do where the error itself does not tell."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = ""
        if error.verify_code in _ANOTHER_HOST:
            advice = "; connect by a name that the certificate has"
        elif error.verify_code in _UNKNOWN_AUTHORITY:
            advice = "; name the file of its authority's certificate as sslrootcert, or in PGSSLROOTCERT"
        return f"the server's certificate is refused: {error.verify_message.rstrip('.')}{advice}"
    if isinstance(error, ssl.SSLError) and error.reason in _TLS_WORDS:
        return _TLS_WORDS[error.reason]
    said = " ".join(str(error).split("\n", maxsplit=1)[0].split()) or type(error).__name__
    if isinstance(error, FileNotFoundError) and error.errno == errno.ENOENT and error.filename is None:
        said += " (a socket, or what sslrootcert, sslcert or sslkey or their PGSSL variables name)"
    if isinstance(error, asyncpg.InvalidCatalogNameError):  # libpq's default is a database named like the role
        said += "; any that does will do: PGDATABASE=postgres, or in the DSN"
    if isinstance(error, asyncpg.ProtocolViolationError) and said.startswith("unsupported startup parameter"):
        said += "; that is a pooler: connect to PostgreSQL itself"
    return said
