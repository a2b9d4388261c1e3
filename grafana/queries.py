"""PromQL over our metrics: every selection heeds the dashboard's variables, and no session counts twice.

A variable stands between backticks in the format `regex`: then Grafana escapes what a regular expression would
misread, and no quote or backslash in a name can end the string. (Its own escaping leaves double quotes alone.)
Several daemons may watch one server, so everything is folded by the labels of ours before it is added up.
"""

from typing import Literal

from pgwatch_sessions.core.findings import Severity, Verdict
from pgwatch_sessions.metrics.table import CLIENT_LABELS, METRICS, PREFIX

#: By verdict, worst last: where daemons disagree the worse one is shown.
VERDICT_CODES = {
    Verdict.OK: 0,
    Verdict.UNKNOWN: 1,
    Verdict.SLOW: 2,
    Verdict.SATURATED: 3,
    Verdict.BLOCKED: 4,
    Verdict.LEAKING: 5,
}
#: The code of a server that no daemon can see.
UNSEEN = 6

#: A forecast beyond this is none: charts and mappings treat it as "not growing". In seconds.
FORECAST_END = 86400

RATE = "rate({}[$__rate_interval])"
PER_MINUTE = "60 * rate({}[$__rate_interval])"
OVER_RANGE = "increase({}[$__range])"

#: The labels that are variables of every dashboard.
VARIABLES = ("server", "database", "application")

_LABELS = {spec.name: ("server", *spec.labels) for spec in METRICS}
#: What an info says, it says in labels that the table of metrics does not list.
_LABELS["server_info"] += ("version", "in_recovery")
_KINDS = {spec.name: spec.kind for spec in METRICS}
#: What a kind of metric has besides its own labels.
_SUFFIX_LABELS = {"_bucket": ("le",)}


def chosen(variable: str, label: str | None = None) -> str:
    """Return the matcher for a label, by default of the variable's name."""
    return f"{label or variable}=~`${{{variable}:regex}}`"


def seen(
    name: str,
    *where: str,
    filtered: tuple[str, ...] = VARIABLES,
    fold: Literal["max", "min"] = "max",
    change: str = "{}",
    suffix: Literal["", "_bucket", "_count", "_sum"] = "",
) -> str:
    """Select a metric, one value a series however many daemons saw it.

    `where` are further matchers, `filtered` the labels that the dashboard's variables choose by. KeyError for a metric
    that there is not.
    """
    labels = (*_LABELS[name], *_SUFFIX_LABELS.get(suffix, ()))
    labels += (f"{PREFIX}{name}",) if _KINDS[name] == "stateset" else ()
    matchers = [chosen(label) for label in filtered if label in labels]
    exposed = f"{PREFIX}{name}{suffix}"
    selector = f"{exposed}{{{', '.join((*matchers, *where))}}}"
    return f"{fold} by ({', '.join(labels)}) ({change.format(selector)})"


def leaked(*where: str) -> str:
    """Select the sessions in open findings, counted once where daemons disagree on the severity of a finding."""
    labels = ("server", *CLIENT_LABELS, "kind", "site")
    return greatest(seen("leaked_sessions", *where), *labels)


def found(*where: str) -> str:
    """Select the open findings with their severity, each at the gravest that any daemon gives it."""
    of_severity = (seen("leaked_sessions", *where, f'severity="{severity}"') for severity in reversed(Severity))
    return " or ignoring (severity) ".join(of_severity)


def total(expression: str, *by: str) -> str:
    """Add up."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def greatest(expression: str, *by: str) -> str:
    """Keep the greatest."""
    return f"max by ({', '.join(by)}) ({expression})"


def or_zero(expression: str, where_known: str) -> str:
    """Say 0 where there is nothing, and nothing where it is not known. Both sides have the same labels."""
    return f"{expression} or 0 * {where_known}"


def watched() -> str:
    """Return 1 for every server that is seen now."""
    return f"({seen('up')} == 1)"


def of_clients(name: str, *, state: str = "idle", where: tuple[str, ...] = ()) -> str:
    """Select a value of clients: 0 for a client that is seen and has no such session."""
    known = seen("connections", f'state="{state}"', *where)
    return or_zero(seen(name, *where), f"max by ({', '.join(('server', *CLIENT_LABELS))}) ({known})")


def verdict(name: Literal["diagnosis", "client_diagnosis"], *by: str, where: tuple[str, ...] = ()) -> str:
    """Return the code of the worst verdict."""
    label = f"{PREFIX}{name}"
    terms = [
        f"{code} * " + seen(name, *where, f'{label}="{verdict}"')
        for verdict, code in sorted(VERDICT_CODES.items(), key=lambda item: -item[1])
        if code
    ]
    if name == "diagnosis":
        terms.append(f"{UNSEEN} * (1 - {seen('up')})")
    return greatest(" or ".join(terms), *by)


def used_share(*where: str) -> str:
    """Return which part of each limit is in use."""
    return (
        f"{seen('used_slots', *where, filtered=('server',))} / {seen('capacity_slots', *where, filtered=('server',))}"
    )


def time_left(*where: str) -> str:
    """Return the seconds until each limit is reached, of disagreeing daemons the sooner; at most FORECAST_END."""
    return f"clamp_max({seen('exhaustion_seconds', *where, filtered=('server',), fold='min')}, {FORECAST_END})"


def findings(severity: Severity, *by: str) -> str:
    """Count the open findings that no daemon finds graver than this, 0 included, of each server or of all together."""
    listed = seen("leaked_sessions", f'severity="{severity}"')
    if graver := "|".join(each for each in Severity if each.rank > severity.rank):
        listed += " unless ignoring (severity) " + seen("leaked_sessions", f'severity=~"{graver}"')
    if by:
        return or_zero(f"count by ({', '.join(by)}) ({listed})", watched())
    return or_zero(f"count({listed})", f"max({watched()})")
