"""Values in the words that the page has for them."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b

from pgwatch_sessions.core.findings import Finding, Kind, Verdict
from pgwatch_sessions.core.forecast import Limit
from pgwatch_sessions.core.model import Reason, Scope
from pgwatch_sessions.core.state import ServerState

VERDICTS: Mapping[Verdict, str] = {
    Verdict.OK: "nothing is wrong",
    Verdict.LEAKING: "leaking",
    Verdict.SATURATED: "too small for its work",
    Verdict.BLOCKED: "blocked by a lock",
    Verdict.SLOW: "slow statements",
    Verdict.UNKNOWN: "not known",
}
KINDS: Mapping[Kind, str] = {
    Kind.TRANSACTION_HELD: "transactions held",
    Kind.CONNECTION_HELD: "connections held",
    Kind.ORIGIN_GROWTH: "connections piling up",
}
FAILURES: Mapping[Reason, str] = {
    Reason.EXHAUSTED: "it has no connection left and refuses new ones",
    Reason.AUTHENTICATION: "it does not accept our login",
    Reason.STARTING_UP: "it is starting up, shutting down or recovering",
    Reason.TIMEOUT: "it did not answer in time",
    Reason.NETWORK: "it cannot be reached",
    Reason.PRIVILEGE: "our role may not do what a look needs",
    Reason.PROTOCOL: "its answer was not understood",
    Reason.OTHER: "it answered with an error",
}

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def lasting(seconds: float) -> str:
    """Write a duration as somebody would say it: `42 s`, `14 min`, `2 h 5 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < 2 * _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def until_full(seconds: float) -> str:
    """Write a forecast."""
    if math.isinf(seconds):
        return "not at this rate"
    return f"in {lasting(seconds)}" if seconds else "now"


def moment(seconds: float) -> str:
    """Write a time to the second, in UTC, as logs have it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Write a number of things."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def limit_name(limit: Limit) -> str:
    """Name a limit on connections."""
    return "the server" if limit.scope is Scope.SERVER else f"{limit.scope} {limit.name}"


def anchor_of(server: str, finding: Finding) -> str:
    """Return the finding's place on the page: the same at each look, and after a restart of the daemon."""
    parts = (server, *finding.opened_as.client, finding.opened_as.kind, finding.opened_as.site)
    digest = blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=5)
    return f"leak-{digest.hexdigest()}"


def nearest_limit(state: ServerState, finding: Finding) -> Limit | None:
    """Return the limit that the finding reaches first; None when it reaches none."""
    forecast = {limit: at for limit, at in state.exhaustion.items() if limit.concerns(finding.key.client)}
    nearest = min(forecast, key=lambda limit: forecast[limit], default=None)
    return nearest if nearest is not None and math.isfinite(forecast[nearest]) else None
