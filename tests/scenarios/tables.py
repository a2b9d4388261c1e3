"""Tables of the results of many stories by family, and of the classic rules for comparison."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median

from tests.scenarios.classic import RULES
from tests.scenarios.forecasts import median_of
from tests.scenarios.judging import Judgement
from tests.scenarios.verdicts import complaints, missed

_COLUMNS = (
    "family", "stories", "right", "leaks", "found", "delay s", "false /1000 h", "site", "rate err",
    "forecast err half-way", "10 min before", "false forecasts", "diagnosis", "flaps",
)  # fmt: skip


def figures_table(judgements: Iterable[Judgement]) -> str:
    """Return the figures of each family, and of all stories."""
    ordered = sorted(judgements, key=_place)
    rows = [_figures(name, tuple(group)) for (_, name), group in groupby(ordered, key=_place)]
    rows.append(_figures("all", ordered))
    return _table(_COLUMNS, rows)


def classic_table(judgements: Iterable[Judgement]) -> str:
    """Return how many leaks and healthy stories the classic rules and ours report."""
    all_of_them = tuple(judgements)
    leaks = [j for j in all_of_them if not j.healthy]
    healthy = [j for j in all_of_them if j.healthy]
    ours = sum(_found(each) for each in leaks), sum(bool(each.false_warnings) for each in healthy)
    alone = sum(each.found_alone for each in leaks), sum(bool(each.false_warnings_alone) for each in healthy)
    rows = [
        ("pgwatch_sessions", ours[0], len(leaks), ours[1], len(healthy)),
        ("pgwatch_sessions, one poll", alone[0], len(leaks), alone[1], len(healthy)),
    ]
    rows += [
        (rule, sum(rule in j.classic for j in leaks), len(leaks), sum(rule in j.classic for j in healthy), len(healthy))
        for rule in RULES
    ]
    return _table(("rule", "found", "of leaks", "false", "of healthy"), [tuple(map(str, row)) for row in rows])


def random_table(judgements: Iterable[Judgement]) -> str:
    """Return the figures that matter of many random stories: recall, false pages, wrong verdicts and forecasts."""
    all_of_them = tuple(judgements)
    due = [found for judgement in all_of_them for found in judgement.found if found.due]
    in_time = [found for found in due if not missed(found)]
    false = sum(len(each.false_warnings) for each in all_of_them)
    hours = sum(each.client_hours for each in all_of_them)
    errors = [each.forecast_errors for each in all_of_them]
    verdicts = sum(each.verdicts for each in all_of_them)
    flat = sum(bool(each.false_forecasts) for each in all_of_them)
    rows = (
        ("leaks found in time, at the severity that they need", f"{len(in_time)} of {len(due)}"),
        ("recall", _share(len(in_time), len(due))),
        ("false pages", str(false)),
        ("false pages per 1,000 hours of a service", f"{false / hours * 1000:.1f}" if hours else "-"),
        ("verdicts right", _share(sum(each.verdicts_right for each in all_of_them), verdicts)),
        ("stories with a forecast of what never comes", str(flat)),
        ("median error of forecasts half-way", _percent(each.half_way.error for each in errors if each.half_way)),
        (
            "median error of forecasts ten minutes before",
            _percent(each.at_ten_minutes.error for each in errors if each.at_ten_minutes),
        ),
        ("findings opened too often", str(sum(each.flaps for each in all_of_them))),
    )
    return _table(("of random stories", ""), rows)


def _place(judgement: Judgement) -> tuple[bool, str]:
    return judgement.healthy, ("healthy: " if judgement.healthy else "leak: ") + judgement.family


def _found(judgement: Judgement) -> bool:
    return all(found.after is not None for found in judgement.found)


def _figures(name: str, judgements: Sequence[Judgement]) -> tuple[str, ...]:
    found = [found for judgement in judgements for found in judgement.found]
    delays = [each.after for each in found if each.after is not None]
    sites = [each.site_right for each in found if each.site_right is not None]
    forecasts = [each.forecast_errors for each in judgements]
    hours = sum(each.client_hours for each in judgements)
    verdicts = sum(each.verdicts for each in judgements)
    return (
        name,
        str(len(judgements)),
        str(sum(not complaints(each) for each in judgements)),
        str(len(found)),
        str(len(delays)),
        f"{median(delays):.0f}" if delays else "-",
        f"{sum(len(each.false_warnings) for each in judgements) / hours * 1000:.1f}" if hours else "-",
        _share(sum(sites), len(sites)),
        _percent(each.rate_error for each in found),
        _percent(each.half_way.error for each in forecasts if each.half_way),
        _percent(each.at_ten_minutes.error for each in forecasts if each.at_ten_minutes),
        str(sum(bool(each.false_forecasts) for each in judgements)),
        _share(sum(each.verdicts_right for each in judgements), verdicts),
        str(sum(each.flaps for each in judgements)),
    )


def _percent(errors: Iterable[float | None]) -> str:
    error = median_of(errors)
    return "-" if error is None else f"{error:.0%}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in (columns, *rows)
    )
    return "\n".join(lines) + "\n"
