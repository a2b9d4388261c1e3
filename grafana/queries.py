"""Build PromQL queries over the daemon's metrics.

Every query filters by the dashboard's variables. A variable is written between backticks in the format `regex`: Grafana
then escapes regular expression characters, and a quote or backslash in a name cannot end the string. (Grafana's own
escaping leaves double quotes alone.) Several daemons may watch one server, so every query merges their series with
`max by` before it sums: no session counts twice.
"""

from typing import Literal

from pgwatch_sessions.core.findings import Severity, Verdict
from pgwatch_sessions.metrics.daemon_metrics import DAEMON_METRICS
from pgwatch_sessions.metrics.table import CLIENT_LABELS, METRICS, PREFIX
from pgwatch_sessions.pools import table
from pgwatch_sessions.pools.metrics import prometheus_name

#: Numbers for verdicts, the worst one highest: if daemons disagree, `max` shows the worse verdict.
VERDICT_CODES = {
    Verdict.OK: 0,
    Verdict.UNKNOWN: 1,
    Verdict.SLOW: 2,
    Verdict.SATURATED: 3,
    Verdict.BLOCKED: 4,
    Verdict.LEAKING: 5,
}
#: The code of a server that no daemon can poll.
NOT_MONITORED = 6

#: Longest forecast shown, in seconds (1 day). Charts and mappings show longer ones as "not within a day".
FORECAST_END = 86400

RATE = "rate({}[$__rate_interval])"
PER_MINUTE = "60 * rate({}[$__rate_interval])"
OVER_RANGE = "increase({}[$__range])"

#: The labels that every dashboard has as variables.
VARIABLES = ("server", "database", "application")

#: What the names of all metrics of pools begin with, and the label with the name of the pool.
POOL_PREFIX = "db_client_connection_"
POOL = prometheus_name(table.POOL)

_LABELS = {spec.name: ("server", *spec.labels) for spec in METRICS}
#: The table of metrics does not list the labels of info metrics.
_LABELS["server_info"] += ("version", "in_recovery")
_LABELS |= {spec.name: spec.labels for spec in DAEMON_METRICS}
_KINDS = {spec.name: spec.kind for spec in METRICS} | {spec.name: spec.kind for spec in DAEMON_METRICS}
#: Additional labels of series with a suffix.
_SUFFIX_LABELS = {"_bucket": ("le",)}


def matches_variable(variable: str, label: str | None = None) -> str:
    """Return the PromQL matcher for a variable. The label has the same name, unless `label` is given."""
    return f"{label or variable}=~`${{{variable}:regex}}`"


def select(
    name: str,
    *where: str,
    filtered: tuple[str, ...] = VARIABLES,
    merge: Literal["max", "min"] = "max",
    change: str = "{}",
    suffix: Literal["", "_bucket", "_count", "_sum"] = "",
) -> str:
    """Select a metric, and merge the series of all daemons that watch the same server.

    `where` are further matchers, and `filtered` are the labels that the dashboard's variables filter. `change` is a
    template such as RATE around the selector. Raises KeyError for an unknown metric.
    """
    labels = (*_LABELS[name], *_SUFFIX_LABELS.get(suffix, ()))
    labels += (f"{PREFIX}{name}",) if _KINDS[name] == "stateset" else ()
    matchers = [matches_variable(label) for label in filtered if label in labels]
    exposed = f"{PREFIX}{name}{suffix}"
    selector = f"{exposed}{{{', '.join((*matchers, *where))}}}"
    return f"{merge} by ({', '.join(labels)}) ({change.format(selector)})"


def pools(name: str, *where: str, by: tuple[str, ...] = (), change: str = "{}") -> str:
    """Add up a metric of the chosen application's pools over its processes, by pool and the labels in `by`.

    The application exposes it itself: no daemon does, so there is nothing to merge.
    """
    selector = f"{POOL_PREFIX}{name}{{{', '.join((matches_variable('application'), *where))}}}"
    return sum_by(change.format(selector), POOL, *by)


def of_daemons(expression: str) -> str:
    """Take from metrics that every program has those of the daemons' processes."""
    return f"{expression} and on (job, instance) {PREFIX}build_info{{}}"


def leaked_sessions(*where: str) -> str:
    """Select the sessions in open findings. A finding counts once, even if daemons disagree about its severity."""
    labels = ("server", *CLIENT_LABELS, "kind", "site")
    return max_by(select("leaked_sessions", *where), *labels)


def findings_by_severity(*where: str) -> str:
    """Select the sessions in open findings by severity. If daemons disagree, the graver severity wins."""
    gravest_first = (select("leaked_sessions", *where, f'severity="{severity}"') for severity in reversed(Severity))
    return " or ignoring (severity) ".join(gravest_first)


def sum_by(expression: str, *by: str) -> str:
    """Sum by labels, or into one value without labels."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def max_by(expression: str, *by: str) -> str:
    """Return the highest value for each combination of labels."""
    return f"max by ({', '.join(by)}) ({expression})"


def or_zero(expression: str, monitored: str) -> str:
    """Return 0 for series of `monitored` that `expression` lacks: no data only means not monitored.

    Both expressions must have the same labels.
    """
    return f"{expression} or 0 * {monitored}"


def monitored_servers() -> str:
    """Return 1 for each server whose last poll succeeded."""
    return f"({select('up')} == 1)"


def client_values(name: str, *, state: str = "idle", where: tuple[str, ...] = ()) -> str:
    """Select a metric of clients. It is 0 for a client without a session in `state`."""
    clients = select("connections", f'state="{state}"', *where)
    return or_zero(select(name, *where), f"max by ({', '.join(('server', *CLIENT_LABELS))}) ({clients})")


def verdict_code(name: Literal["diagnosis", "client_diagnosis"], *by: str, where: tuple[str, ...] = ()) -> str:
    """Return the code of the worst verdict of any daemon."""
    label = f"{PREFIX}{name}"
    terms = [
        f"{code} * " + select(name, *where, f'{label}="{verdict}"')
        for verdict, code in sorted(VERDICT_CODES.items(), key=lambda item: -item[1])
        if code
    ]
    if name == "diagnosis":
        terms.append(f"{NOT_MONITORED} * (1 - {select('up')})")
    return max_by(" or ".join(terms), *by)


def used_share(*where: str) -> str:
    """Return the share of each limit that is in use, from 0 to 1."""
    used = select("used_slots", *where, filtered=("server",))
    capacity = select("capacity_slots", *where, filtered=("server",))
    return f"{used} / {capacity}"


def time_left(*where: str) -> str:
    """Return the seconds until each limit is reached, at most FORECAST_END. If daemons disagree, the shorter wins."""
    return f"clamp_max({select('exhaustion_seconds', *where, filtered=('server',), merge='min')}, {FORECAST_END})"


def count_findings(severity: Severity, *by: str) -> str:
    """Count the open findings of a severity, by labels or in total.

    If daemons disagree, a finding counts with its gravest severity only.
    """
    counted = select("leaked_sessions", f'severity="{severity}"')
    if graver := "|".join(each for each in Severity if each.rank > severity.rank):
        counted += " unless ignoring (severity) " + select("leaked_sessions", f'severity=~"{graver}"')
    if by:
        return or_zero(f"count by ({', '.join(by)}) ({counted})", monitored_servers())
    return or_zero(f"count({counted})", f"max({monitored_servers()})")
