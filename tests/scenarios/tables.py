"""Tables of the results of many stories by family, and of the classic rules for comparison."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median

from pgwatch_sessions.core.findings import Severity
from tests.scenarios.classic import RULES
from tests.scenarios.expectations import clients_of
from tests.scenarios.judging import Judgement
from tests.scenarios.verdicts import complaints

_COLUMNS = (
    "family", "stories", "right", "leaks", "found", "delay s", "false /1000 h", "site", "rate err", "forecast err",
    "diagnosis", "flaps",
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
    leaks = [j for j in all_of_them if not j.played.story.healthy]
    healthy = [j for j in all_of_them if j.played.story.healthy]
    ours = sum(_found(each) for each in leaks), sum(bool(each.false_warnings) for each in healthy)
    alone = sum(map(_found_alone, leaks)), sum(bool(each.false_warnings_alone) for each in healthy)
    rows = [
        ("pgwatch_sessions", ours[0], len(leaks), ours[1], len(healthy)),
        ("pgwatch_sessions, one poll", alone[0], len(leaks), alone[1], len(healthy)),
    ]
    rows += [
        (rule, sum(_fires(rule, j) for j in leaks), len(leaks), sum(_fires(rule, j) for j in healthy), len(healthy))
        for rule in RULES
    ]
    return _table(("rule", "found", "of leaks", "false", "of healthy"), [tuple(map(str, row)) for row in rows])


def _place(judgement: Judgement) -> tuple[bool, str]:
    story = judgement.played.story
    return story.healthy, ("healthy: " if story.healthy else "leak: ") + story.family


def _found(judgement: Judgement) -> bool:
    return all(found.after is not None for found in judgement.found)


def _found_alone(judgement: Judgement) -> bool:
    """Return whether some single poll of the story shows a warning about a client that leaks then."""
    return any(
        finding.severity is not Severity.NOTICE and finding.key.client in seen.leaking
        for seen in judgement.played.seen
        for finding in seen.alone
    )


def _fires(rule: str, judgement: Judgement) -> bool:
    first = min((entry.at for entry in judgement.played.ledger), default=0.0)
    return any(rule in seen.classic for seen in judgement.played.seen if seen.at >= first)


def _figures(name: str, judgements: Sequence[Judgement]) -> tuple[str, ...]:
    found = [found for judgement in judgements for found in judgement.found]
    delays = [each.after for each in found if each.after is not None]
    sites = [each.site_right for each in found if each.site_right is not None]
    rates = [each.rate_error for each in found if each.rate_error is not None]
    forecasts = [each.forecast_error for each in judgements if each.forecast_error is not None]
    hours = sum(each.played.story.minutes / 60 * len(clients_of(each.played.story)) for each in judgements)
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
        f"{median(rates):.0%}" if rates else "-",
        f"{median(forecasts):.0%}" if forecasts else "-",
        _share(sum(each.verdicts_right for each in judgements), verdicts),
        str(sum(each.flaps for each in judgements)),
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in (columns, *rows)
    )
    return "\n".join(lines) + "\n"
