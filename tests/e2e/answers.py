"""Run every shipped expression on Prometheus, and count the series that answer in each phase of the run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.e2e.prometheus import Prometheus
from tests.e2e.scaled import scale_promql
from tests.e2e.scene import APPLICATION, CLIENT, ORDERS
from tests.support.alert_rules import rules
from tests.support.dashboard_expressions import (
    Expression,
    annotation_queries,
    expressions,
    fill_variables,
    variable_queries,
)

_STEP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCount:
    """One expression, and how many series answered it."""

    kind: str
    place: str
    #: The highest number of series at one time, by phase. Phases without an answer are absent.
    series: Mapping[str, int]


def fill_query(expression: Expression) -> str:
    """Fill in the variables as a user would: the leaking client, its server, its application, or All."""
    values: Mapping[str, str | None] = CLIENT if expression.dashboard == "leak" else dict.fromkeys(CLIENT)
    chosen = {"server": {"server": ORDERS}, "application": {"application": APPLICATION}}
    values = {**values, **chosen.get(expression.dashboard, {})}
    return fill_variables(expression.text, values, window="10s")


def shipped_expressions() -> Iterator[tuple[str, str, str]]:
    """Yield the kind, place and PromQL of every expression in dashboards and (scaled) rules."""
    for kind, found in (
        ("panel", expressions()),
        ("variable", variable_queries()),
        ("annotation", annotation_queries()),
    ):
        for expression in found:
            yield kind, expression.place, fill_query(expression)
    for rule in rules():
        severity = rule.content.get("labels", {}).get("severity")
        if rule.is_alert:
            yield "alert", f"{rule.name} ({severity})", scale_promql(rule.expr)
            labels = f"alertname={json.dumps(rule.name)},severity={json.dumps(severity)}"
            yield "alert fires", f"{rule.name} ({severity})", f'ALERTS{{alertstate="firing",{labels}}}'
        else:
            yield "recording", rule.name, scale_promql(rule.expr)


def count_answers(prometheus: Prometheus, phases: Sequence[tuple[str, float, float]]) -> Iterator[AnswerCount]:
    """Run every shipped expression over the whole run."""
    start, end = phases[0][1], phases[-1][2]
    for kind, place, query in shipped_expressions():
        counts = prometheus.count_series(query, start=start, end=end, step=_STEP)
        highest = {
            name: max((count for at, count in counts.items() if begin <= at < end), default=0)
            for name, begin, end in phases
        }
        yield AnswerCount(kind=kind, place=place, series={name: count for name, count in highest.items() if count})


def as_table(found: Sequence[AnswerCount], phases: Sequence[str]) -> str:
    """Return a table of series by phase, with `.` for none."""
    width = max(len(each.place) for each in found)
    lines = [f"{'':11}  {'':{width}}  " + "  ".join(phases)]
    lines += [
        f"{each.kind:11}  {each.place:{width}}  "
        + "  ".join(str(each.series.get(phase, ".")).rjust(len(phase)) for phase in phases)
        for each in found
    ]
    return "\n".join(line.rstrip() for line in lines)
