"""Every expression that ships, and in which phases of the run Prometheus had an answer."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.alerts.rules import rules
from tests.e2e.prometheus import Prometheus
from tests.e2e.scaled import in_a_hurry
from tests.e2e.scene import CLIENT, ORDERS
from tests.grafana.expressions import Expression, annotations, choices, expressions, filled

_STEP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One expression and its answers."""

    kind: str
    place: str
    #: The most series that answered at once, by phase; phases without an answer are absent.
    series: Mapping[str, int]


def query_of(expression: Expression) -> str:
    """Put in what a person would have chosen: the one client, or everything."""
    values: Mapping[str, str | None] = CLIENT if expression.dashboard == "leak" else dict.fromkeys(CLIENT)
    if expression.dashboard == "server":
        values = {**values, "server": ORDERS}
    return filled(expression.text, values, window="10s")


def shipped() -> Iterator[tuple[str, str, str]]:
    """Yield kind, place and PromQL of all: of dashboards, and of rules in the form in which they run."""
    for kind, found in (("panel", expressions()), ("variable", choices()), ("annotation", annotations())):
        for expression in found:
            yield kind, expression.place, query_of(expression)
    for rule in rules():
        severity = rule.content.get("labels", {}).get("severity")
        if rule.is_alert:
            yield "alert", f"{rule.name} ({severity})", in_a_hurry(rule.expr)
            labels = f"alertname={json.dumps(rule.name)},severity={json.dumps(severity)}"
            yield "alert fires", f"{rule.name} ({severity})", f'ALERTS{{alertstate="firing",{labels}}}'
        else:
            yield "recording", rule.name, in_a_hurry(rule.expr)


def answers(prometheus: Prometheus, phases: Sequence[tuple[str, float, float]]) -> Iterator[Asked]:
    """Ask for everything over the whole run."""
    start, end = phases[0][1], phases[-1][2]
    for kind, place, query in shipped():
        counted = prometheus.counted(query, start=start, end=end, step=_STEP)
        most = {
            name: max((count for at, count in counted.items() if begun <= at < ended), default=0)
            for name, begun, ended in phases
        }
        yield Asked(kind=kind, place=place, series={name: count for name, count in most.items() if count})


def as_table(found: Sequence[Asked], phases: Sequence[str]) -> str:
    """Show series by phase, `.` where there was none."""
    width = max(len(each.place) for each in found)
    lines = [f"{'':11}  {'':{width}}  " + "  ".join(phases)]
    lines += [
        f"{each.kind:11}  {each.place:{width}}  "
        + "  ".join(str(each.series.get(phase, ".")).rjust(len(phase)) for phase in phases)
        for each in found
    ]
    return "\n".join(line.rstrip() for line in lines)
