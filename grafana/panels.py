"""The kinds of panels we have, with what all of a kind have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, table, text, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.queries import FORECAST_END, UNSEEN, VERDICT_CODES
from pgwatch_sessions.core.findings import Verdict

#: In place of "No data" where only findings are shown.
NO_FINDING = "No finding"

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel = stat.Panel | timeseries.Panel | table.Panel | statetimeline.Panel | heatmap.Panel | text.Panel
PanelT = TypeVar("PanelT", stat.Panel, timeseries.Panel, table.Panel, statetimeline.Panel, heatmap.Panel)

GREEN, YELLOW, ORANGE, RED, PURPLE, GREY, DARK = "green", "yellow", "orange", "red", "purple", "#8e8e8e", "dark-red"

#: Values and the colours that begin there.
Steps = Sequence[tuple[float, str]]

#: Of a limit, which part is in use.
FULL: Steps = ((0.8, ORANGE), (0.95, RED))
#: Seconds until a limit is reached: nearer than the daemon's `horizon`, within a night, later.
SOON: Steps = ((0, RED), (3600, ORANGE), (6 * 3600, GREEN))

# Lines across charts, where alerts begin.
#: Of seconds until a limit is reached; only lines, since below them is worse.
SOON_LINES: Steps = ((900, RED), (3600, ORANGE))
#: Of seconds idle in transaction, and of seconds at work.
HELD_LONG: Steps = ((1800, ORANGE),)
AT_WORK_LONG: Steps = ((3600, ORANGE),)
#: Of sessions that wait for one client.
MANY_WAIT: Steps = ((10, RED),)
#: Of transactions back.
VACUUM_HELD: Steps = ((1_000_000, ORANGE), (100_000_000, RED))

_VERDICT_COLOURS = {
    Verdict.OK: GREEN,
    Verdict.UNKNOWN: GREY,
    Verdict.SLOW: YELLOW,
    Verdict.SATURATED: ORANGE,
    Verdict.BLOCKED: PURPLE,
    Verdict.LEAKING: RED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One expression of a panel."""

    expr: str
    legend: str = ""
    #: Of a table: the column its value stands in.
    column: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a panel says of itself, and the unit of its numbers."""

    title: str
    #: What a tired person is to make of it.
    means: str
    unit: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelStyle:
    """How values are coloured and written, where they lead, and the panel's size on a grid of 24 columns."""

    width: int
    height: int = 8
    #: From each value on, its colour; what is below the first is green.
    steps: Steps = ()
    mappings: Sequence[dashboard.ValueMapping] = ()
    links: Sequence[builders.DashboardLink] = ()
    decimals: int | None = None
    #: What stands in place of "No data", where that is a good thing.
    nothing: str = ""


def stat_panel(words: Words, poll: PanelStyle, *queries: Query) -> stat.Panel:
    """Show the newest value of each expression, in its colour."""
    panel = _framed(stat.Panel(), words, poll, queries, instant=True)
    newest = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    several = common.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else common.BigValueTextMode.VALUE
    return (
        panel.reduce_options(newest)
        .color_mode(common.BigValueColorMode.BACKGROUND)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(several)
    )


def name_panel(words: Words, poll: PanelStyle, query: Query) -> stat.Panel:
    """Show the names of series, where the value says nothing."""
    return (
        stat_panel(words, poll, query).text_mode(common.BigValueTextMode.NAME).color_mode(common.BigValueColorMode.NONE)
    )


def graph(
    words: Words, poll: PanelStyle, *queries: Query, stacked: bool = False, logarithmic: bool = False
) -> timeseries.Panel:
    """Draw lines over time; gaps stay gaps, since they say that nothing was seen."""
    panel = (
        _framed(timeseries.Panel(), words, poll, queries)
        .line_width(1)
        .fill_opacity(25 if stacked else 5)
        .show_points(common.VisibilityMode.AUTO)
        .span_nulls(False)
        .min(0)
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
    )
    if poll.steps:
        panel.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if logarithmic:
        # From a second on: a logarithm has no place for 0.
        panel.min(1).scale_distribution(
            common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        )
    return panel


def timeline(words: Words, poll: PanelStyle, *queries: Query) -> statetimeline.Panel:
    """Draw states over time as coloured bars."""
    return (
        _framed(statetimeline.Panel(), words, poll, queries)
        .show_value(common.VisibilityMode.AUTO)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(False)
        )
    )


def heat(words: Words, poll: PanelStyle, query: Query) -> heatmap.Panel:
    """Draw the buckets of a histogram over time."""
    return (
        _framed(heatmap.Panel(), words, poll, (query,), form=PromQueryFormat.HEATMAP)
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .y_axis(heatmap.YAxisConfig().unit(words.unit))
        .cell_values(heatmap.CellValues().unit("none"))
        .hide_from(common_builders.HideSeriesConfig())
        .show_legend()
    )


def rows(
    words: Words,
    poll: PanelStyle,
    *queries: Query,
    names: Mapping[str, str],
    columns: Mapping[str, Sequence[tuple[str, Any]]],
) -> table.Panel:
    """List the newest values, one row for each combination of labels.

    `names` are the labels shown and what they are called, in order; `columns` are properties of a field by its name.
    """
    panel = _framed(table.Panel(), words, poll, queries, instant=True, form=PromQueryFormat.TABLE)
    values = {(f"Value #{ref}" if len(queries) > 1 else "Value"): query.column for ref, query in _referred(queries)}
    renamed = {**names, **values}
    panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        dashboard.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: place for place, name in enumerate(renamed)},
                "renameByName": renamed,
            },
        )
    )
    for name, properties in columns.items():
        panel.override_by_name(
            name, [dashboard.DynamicConfigValue(id_val=id_, value=value) for id_, value in properties]
        )
    return panel.filterable(True).cell_height(common.TableCellHeight.SM)


def words_panel(title: str, means: str, content: str, poll: PanelStyle) -> text.Panel:
    """Show text."""
    return text.Panel().title(title).description(means).content(content).span(poll.width).height(poll.height)


def link(title: str, url: str, *, elsewhere: bool = False) -> builders.DashboardLink:
    """Lead to another page, in a window of its own if it is not Grafana's."""
    return builders.DashboardLink(title).url(url).target_blank(elsewhere)


def thresholds(steps: Steps) -> builders.ThresholdsConfig:
    """Return colours by value, green below the first."""
    base = dashboard.Threshold(value=None, color=GREEN)
    further = [dashboard.Threshold(value=value, color=colour) for value, colour in steps]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps([base, *further])


def verdict_mapping() -> dashboard.ValueMap:
    """Write codes of verdicts as words."""
    texts = {code: (str(verdict), _VERDICT_COLOURS[verdict]) for verdict, code in VERDICT_CODES.items()}
    texts[UNSEEN] = ("not seen", DARK)
    return dashboard.ValueMap(
        options={
            str(code): dashboard.ValueMappingResult(text=text, color=colour, index=code)
            for code, (text, colour) in texts.items()
        }
    )


def no_forecast_mapping() -> dashboard.RangeMap:
    """Write a forecast that is none in words."""
    result = dashboard.ValueMappingResult(text="not within a day", color=GREEN, index=0)
    return dashboard.RangeMap(options=dashboard.DashboardRangeMapOptions(from_val=FORECAST_END, to=None, result=result))


def _framed(
    panel: PanelT,
    words: Words,
    poll: PanelStyle,
    queries: Sequence[Query],
    *,
    instant: bool = False,
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> PanelT:
    """Give a panel what every panel has."""
    panel.title(words.title).description(words.means).unit(words.unit).datasource(SOURCE)
    panel.span(poll.width).height(poll.height).thresholds(thresholds(poll.steps))
    panel.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    if poll.mappings:
        panel.mappings(list(poll.mappings))
    if poll.links:
        panel.data_links(list(poll.links))
    if poll.nothing:
        panel.no_value(poll.nothing)
    if poll.decimals is not None:
        panel.decimals(poll.decimals)
    for ref, query in _referred(queries):
        target = prometheus.Dataquery().datasource(SOURCE).ref_id(ref).expr(query.expr)
        target.legend_format(query.legend).format(form)
        panel.with_target(target.instant() if instant else target.range())
    return panel


def _referred(queries: Sequence[Query]) -> Sequence[tuple[str, Query]]:
    return tuple(zip(ascii_uppercase, queries, strict=False))
