"""Why a server cannot be polled, and what to do about it."""

from collections.abc import Mapping

from pgwatch_sessions.core.model import Failure, FailureReason
from pgwatch_sessions.wording.labels import printable

#: Completes "Cannot poll this server: ...".
FAILURES: Mapping[FailureReason, str] = {
    FailureReason.EXHAUSTED: "it has no free connection slot and refuses new connections",
    FailureReason.OWN_LIMIT: "the limit on connections of our own role or database is reached",
    FailureReason.AUTHENTICATION: "it rejects our login",
    FailureReason.STARTING_UP: "it is starting up, shutting down or recovering",
    FailureReason.TIMEOUT: "it did not answer in time",
    FailureReason.NETWORK: "it cannot be reached",
    FailureReason.WRONG_ROLE: "no host has the wanted role",
    FailureReason.PRIVILEGE: "the monitoring role lacks a privilege that a poll needs",
    FailureReason.PROTOCOL: "it sent an answer that we do not understand",
    FailureReason.OTHER: "it answered with an error",
}
#: What to do. The other reasons need no advice.
FAILURE_ADVICE: Mapping[FailureReason, str] = {
    FailureReason.OWN_LIMIT: "The server itself is not full. See who else logs in as the monitoring role or to its "
    "database (another daemon, a check that was left running), connect to another database, or raise the CONNECTION "
    "LIMIT with ALTER ROLE or ALTER DATABASE.",
    FailureReason.EXHAUSTED: "A daemon that connected earlier can still poll a full server. From PostgreSQL 16 on, "
    "reserved_connections keeps slots free for a monitoring role.",
    FailureReason.AUTHENTICATION: "Set the role with -U or PGUSER, and the password with PGPASSWORD, ~/.pgpass, or a "
    "file that --password-file names. `pgwatch-sessions config` shows where each comes from. The server's pg_hba.conf "
    "decides who may connect from where.",
    FailureReason.NETWORK: "Set host and port with -h and -p, --dsn, or PGHOST and PGPORT (default localhost:5432). "
    "`pgwatch-sessions config` shows where each comes from.",
    FailureReason.WRONG_ROLE: "target_session_attrs in the DSN, or PGTARGETSESSIONATTRS, says which role is wanted. "
    "Name all hosts in the DSN, or see whether a failover has not ended.",
    FailureReason.TIMEOUT: "Check the host name, and whether a firewall drops the packets. Give a poll more time "
    "with --timeout.",
}


def failure_text(failure: Failure) -> str:
    """Return why a poll failed, for example `it cannot be reached (network: connecting: refused)`."""
    detail = f": {failure.detail}" if failure.detail else ""
    return printable(f"{FAILURES[failure.reason]} ({failure.reason}{detail})")
