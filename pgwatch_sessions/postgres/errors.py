"""What a poll can fail with, as a Failure: every error that comes of talking to a server has a reason."""

import errno
import ssl

import asyncpg

from pgwatch_sessions.core.model import Failure, Reason, Scope


class PasswordUnreadableError(asyncpg.InvalidPasswordError):
    """The password file cannot be read now."""


class ConnectionParametersError(asyncpg.ClientConfigurationError):
    """The DSN or libpq's variables do not make sense. Never quotes them: a password may be part of what is wrong."""


class UnexpectedRowsError(asyncpg.ProtocolError):
    """The server answered a statement with rows that the statement cannot return."""


#: The first match counts, so a class comes before its parents.
_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (asyncpg.TooManyConnectionsError, Reason.EXHAUSTED),
    (asyncpg.InvalidAuthorizationSpecificationError, Reason.AUTHENTICATION),
    (asyncpg.CannotConnectNowError, Reason.STARTING_UP),
    (asyncpg.QueryCanceledError, Reason.TIMEOUT),
    (asyncpg.LockNotAvailableError, Reason.TIMEOUT),
    (asyncpg.InsufficientPrivilegeError, Reason.PRIVILEGE),
    (asyncpg.ProtocolViolationError, Reason.PROTOCOL),
    (asyncpg.PostgresConnectionError, Reason.NETWORK),
    (asyncpg.OperatorInterventionError, Reason.NETWORK),  # shut down, crashed, terminated: the connection is gone
    (asyncpg.TargetServerAttributeNotMatched, Reason.OTHER),
    (asyncpg.InternalClientError, Reason.PROTOCOL),
    (asyncpg.UnsupportedClientFeatureError, Reason.PROTOCOL),
    (asyncpg.ClientConfigurationError, Reason.OTHER),
    (asyncpg.PostgresError, Reason.OTHER),
    (asyncpg.InterfaceError, Reason.NETWORK),  # "connection is closed" and the like
    (TimeoutError, Reason.TIMEOUT),
    (OSError, Reason.NETWORK),
    # The driver trusts the server in places. What it raises there can be anything, such as LookupError for an unknown
    # encoding, or AttributeError for a greeting that lacks the version.
    (Exception, Reason.PROTOCOL),
)

#: A server may send a text of any length.
_LONGEST_TEXT = 300

#: The server raises SQLSTATE 53300 when it is full, and also when the limit of one role or one database is reached. Its
#: message is translated by lc_messages, but the name of the C function that raised it is not (utils/init/miscinit.c and
#: postinit.c of PostgreSQL 14 to 18).
_EXHAUSTED_SCOPES = {"InitializeSessionUserId": Scope.ROLE, "CheckMyDatabase": Scope.DATABASE}

# Codes of OpenSSL (x509_vfy.h): the certificate is for another name or address; no known authority has signed it.
_ANOTHER_HOST = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})
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
        reason = Reason.NETWORK
    scope = None
    if reason is Reason.EXHAUSTED:
        scope = _EXHAUSTED_SCOPES.get(getattr(error, "server_source_function", None) or "", Scope.SERVER)
    return Failure(reason=reason, detail=f"{doing}: {_said(error)}", exhausted_scope=scope)


def _said(error: Exception) -> str:
    """Say what went wrong in one line, and what to do about it where the error itself does not."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = ""
        if error.verify_code in _ANOTHER_HOST:
            advice = "; connect by a name that the certificate has"
        elif error.verify_code in _UNKNOWN_AUTHORITY:
            advice = "; name the file of its authority's certificate as sslrootcert, or in PGSSLROOTCERT"
        return f"the server's certificate is refused: {error.verify_message.rstrip('.')}{advice}"
    if isinstance(error, ssl.SSLError) and error.reason in _TLS_WORDS:
        return _TLS_WORDS[error.reason]
    said = " ".join(str(error).split("\n", maxsplit=1)[0].split())[:_LONGEST_TEXT] or type(error).__name__
    if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError | OSError):
        kind = type(error).__name__
        said = kind if isinstance(error, UnicodeError) else f"{kind}: {said}"  # a UnicodeError quotes what it read
        return f"unexpected {said}; is this a PostgreSQL server?"
    if isinstance(error, FileNotFoundError) and error.errno == errno.ENOENT and error.filename is None:
        said += " (a socket, or what sslrootcert, sslcert or sslkey or their PGSSL variables name)"
    if isinstance(error, asyncpg.InvalidCatalogNameError):  # libpq's default is a database named like the role
        said += "; connect to any database that does: PGDATABASE=postgres, or in the DSN"
    if isinstance(error, asyncpg.ProtocolViolationError) and said.startswith("unsupported startup parameter"):
        said += "; that is a pooler: connect to PostgreSQL itself"
    return said
