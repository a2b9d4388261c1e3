"""Build panels: one function for each kind, with the settings that all panels of that kind share."""

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

from grafana.queries import FORECAST_END, NOT_MONITORED, VERDICT_CODES
from pgwatch_sessions.core.findings import Verdict

#: Shown instead of "No data" in panels about findings.
NO_FINDING = "No finding"

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel = stat.Panel | timeseries.Panel | table.Panel | statetimeline.Panel | heatmap.Panel | text.Panel
PanelT = TypeVar("PanelT", stat.Panel, timeseries.Panel, table.Panel, statetimeline.Panel, heatmap.Panel)

GREEN, YELLOW, ORANGE, RED, PURPLE, GREY, DARK = "green", "yellow", "orange", "red", "purple", "#8e8e8e", "dark-red"

#: Threshold values, each with the colour from that value on.
Steps = Sequence[tuple[float, str]]

#: Share of a connection limit in use.
FULL: Steps = ((0.8, ORANGE), (0.95, RED))
#: Seconds until a limit is reached: less than the daemon's `horizon` (1 h), less than a night (6 h), more.
SOON: Steps = ((0, RED), (3600, ORANGE), (6 * 3600, GREEN))

# Lines across charts at the values at which alerts fire.
#: Seconds until a limit is reached. Lines only, without colours, because low values are the bad ones.
SOON_LINES: Steps = ((900, RED), (3600, ORANGE))
#: Seconds idle in transaction, and seconds active.
HELD_LONG: Steps = ((1800, ORANGE),)
ACTIVE_LONG: Steps = ((3600, ORANGE),)
#: Sessions blocked by one client.
MANY_BLOCKED: Steps = ((10, RED),)
#: Age of the oldest snapshot, in transactions.
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
    """One PromQL expression of a panel."""

    expr: str
    legend: str = ""
    #: In a table, the column for its value.
    column: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelText:
    """The title and description of a panel, and the unit of its values."""

    title: str
    #: What the values mean, for a tired reader.
    description: str
    unit: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelStyle:
    """Colours, mappings and links of a panel's values, and its size on a grid of 24 columns."""

    width: int
    height: int = 8
    #: Thresholds with their colours; below the first, values are green.
    steps: Steps = ()
    mappings: Sequence[dashboard.ValueMapping] = ()
    links: Sequence[builders.DashboardLink] = ()
    decimals: int | None = None
    #: Text instead of "No data", for panels in which no data is good.
    no_value: str = ""


def stat_panel(panel_text: PanelText, style: PanelStyle, *queries: Query) -> stat.Panel:
    """Show the newest value of each expression on its threshold's colour."""
    panel = _configure(stat.Panel(), panel_text, style, queries, instant=True)
    newest = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    several = common.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else common.BigValueTextMode.VALUE
    return (
        panel.reduce_options(newest)
        .color_mode(common.BigValueColorMode.BACKGROUND)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(several)
    )


def name_panel(panel_text: PanelText, style: PanelStyle, query: Query) -> stat.Panel:
    """Show the legend of a series instead of its value."""
    return (
        stat_panel(panel_text, style, query)
        .text_mode(common.BigValueTextMode.NAME)
        .color_mode(common.BigValueColorMode.NONE)
    )


def graph_panel(
    panel_text: PanelText, style: PanelStyle, *queries: Query, stacked: bool = False, logarithmic: bool = False
) -> timeseries.Panel:
    """Draw lines over time. Gaps stay visible, because they show that polls failed."""
    panel = (
        _configure(timeseries.Panel(), panel_text, style, queries)
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
    if style.steps:
        panel.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if logarithmic:
        # From 1 on, because a logarithmic axis cannot show 0.
        panel.min(1).scale_distribution(
            common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        )
    return panel


def timeline_panel(panel_text: PanelText, style: PanelStyle, *queries: Query) -> statetimeline.Panel:
    """Draw states over time as coloured bars."""
    return (
        _configure(statetimeline.Panel(), panel_text, style, queries)
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


def heatmap_panel(panel_text: PanelText, style: PanelStyle, query: Query) -> heatmap.Panel:
    """Draw the buckets of a histogram over time."""
    return (
        _configure(heatmap.Panel(), panel_text, style, (query,), form=PromQueryFormat.HEATMAP)
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .y_axis(heatmap.YAxisConfig().unit(panel_text.unit))
        .cell_values(heatmap.CellValues().unit("none"))
        .hide_from(common_builders.HideSeriesConfig())
        .show_legend()
    )


def table_panel(
    panel_text: PanelText,
    style: PanelStyle,
    *queries: Query,
    names: Mapping[str, str],
    columns: Mapping[str, Sequence[tuple[str, Any]]],
) -> table.Panel:
    """Show the newest values in a table, one row for each combination of labels.

    `names` maps the labels to column titles, in order. `columns` maps column titles to Grafana field properties.
    """
    panel = _configure(table.Panel(), panel_text, style, queries, instant=True, form=PromQueryFormat.TABLE)
    values = {(f"Value #{ref}" if len(queries) > 1 else "Value"): query.column for ref, query in _with_ref_ids(queries)}
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


def text_panel(title: str, description: str, content: str, style: PanelStyle) -> text.Panel:
    """Show Markdown text."""
    return text.Panel().title(title).description(description).content(content).span(style.width).height(style.height)


def link(title: str, url: str, *, new_tab: bool = False) -> builders.DashboardLink:
    """Link to another page, in a new tab if it is outside Grafana."""
    return builders.DashboardLink(title).url(url).target_blank(new_tab)


def dashes(*pattern: int) -> dashboard.DynamicConfigValue:
    """Return a property that draws a line with dashes: the pixels drawn and left out, in turn."""
    return dashboard.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": list(pattern)})


def colour(fixed: str) -> dashboard.DynamicConfigValue:
    """Return a property that draws a line in this colour."""
    return dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": fixed})


def thresholds(steps: Steps) -> builders.ThresholdsConfig:
    """Return Grafana thresholds: green below the first step."""
    base = dashboard.Threshold(value=None, color=GREEN)
    further = [dashboard.Threshold(value=value, color=colour) for value, colour in steps]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps([base, *further])


def verdict_mapping() -> dashboard.ValueMap:
    """Show the codes of verdicts as words."""
    texts = {code: (str(verdict), _VERDICT_COLOURS[verdict]) for verdict, code in VERDICT_CODES.items()}
    texts[NOT_MONITORED] = ("not monitored", DARK)
    return dashboard.ValueMap(
        options={
            str(code): dashboard.ValueMappingResult(text=text, color=colour, index=code)
            for code, (text, colour) in texts.items()
        }
    )


def no_forecast_mapping() -> dashboard.RangeMap:
    """Show values from FORECAST_END on as words: the limit is not reached within a day."""
    result = dashboard.ValueMappingResult(text="not within a day", color=GREEN, index=0)
    return dashboard.RangeMap(options=dashboard.DashboardRangeMapOptions(from_val=FORECAST_END, to=None, result=result))


def _configure(
    panel: PanelT,
    panel_text: PanelText,
    style: PanelStyle,
    queries: Sequence[Query],
    *,
    instant: bool = False,
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> PanelT:
    """Apply the settings that every panel has."""
    panel.title(panel_text.title).description(panel_text.description).unit(panel_text.unit).datasource(SOURCE)
    panel.span(style.width).height(style.height).thresholds(thresholds(style.steps))
    panel.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    if style.mappings:
        panel.mappings(list(style.mappings))
    if style.links:
        panel.data_links(list(style.links))
    if style.no_value:
        panel.no_value(style.no_value)
    if style.decimals is not None:
        panel.decimals(style.decimals)
    for ref, query in _with_ref_ids(queries):
        target = prometheus.Dataquery().datasource(SOURCE).ref_id(ref).expr(query.expr)
        target.legend_format(query.legend).format(form)
        panel.with_target(target.instant() if instant else target.range())
    return panel


def _with_ref_ids(queries: Sequence[Query]) -> Sequence[tuple[str, Query]]:
    return tuple(zip(ascii_uppercase, queries, strict=False))
