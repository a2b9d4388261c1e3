"""What all dashboards have in common: variables, alerts as annotations, links to each other, places and ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from grafana.panels import RED, SOURCE, Panel, link
from grafana.queries import chosen
from pgwatch_sessions.metrics.table import PREFIX

TAG = "pgwatch-sessions"
FLEET, SERVER, LEAK = "pgwatch-sessions-fleet", "pgwatch-sessions-server", "pgwatch-sessions-leak"

PAGE = "http://localhost:9488"
#: Where the folder alerts/runbooks can be read; the alert rules say the same.
RUNBOOKS = "https://runbooks.example/pgwatch-sessions"

#: Variables that a link between dashboards hands on besides those it sets.
_KEPT = "${datasource:queryparam}&${page:queryparam}&${runbooks:queryparam}&${__url_time_range}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A row of a dashboard: its title and what stands below, in lines of 24 columns."""

    title: str
    panels: Sequence[Panel]


class AlertAnnotations(dashboard.AnnotationQuery):
    """Alerts of ours while they fired. The SDK has no field for what the data source lets an annotation say."""

    def to_json(self) -> dict[str, object]:
        """Return Grafana's form."""
        return {
            **super().to_json(),
            "titleFormat": "{{alertname}} ({{severity}})",
            "textFormat": "{{server}} {{database}} {{user}} {{application}} {{site}}",
            "tagKeys": "severity,server,application",
        }


class _Built(builders.AnnotationQuery):
    """A builder of an annotation that is there already."""

    def __init__(self, annotation: dashboard.AnnotationQuery) -> None:
        self._internal = annotation


def dashboard_of(
    uid: str,
    title: str,
    description: str,
    *,
    variables: Sequence[builders.QueryVariable],
    sections: Sequence[Section],
) -> dashboard.Dashboard:
    """Put a dashboard together."""
    frame = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("pgwatch-sessions")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .link(to_page().icon("external link"))
        .link(link("Runbooks", "${runbooks:raw}", elsewhere=True).icon("doc"))
        .annotation(_Built(_alerts()))
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in variables:
        frame.with_variable(variable)
    frame.with_variable(
        _text("page", "Page", "Address of a daemon: its page says who leaks, why, and what to do.", PAGE)
    )
    frame.with_variable(_text("runbooks", "Runbooks", "Where the runbooks can be read.", RUNBOOKS))
    for section in sections:
        frame.with_row(builders.Row(section.title))
        for panel in section.panels:
            frame.with_panel(panel)
    built = frame.build()
    for number, placed in enumerate(built.panels or (), start=1):
        placed.id_val = number
    return built


def choice(
    name: str, label: str, description: str, *, of: str, where: Sequence[str] = (), several: bool
) -> builders.QueryVariable:
    """Let people choose label values of a metric, those that go with what was chosen before."""
    matchers = f"{{{', '.join(map(chosen, where))}}}" if where else ""
    query: dict[str, object] = {
        "qryType": 1,
        "query": f"label_values({PREFIX}{of}{matchers}, {name})",
        "refId": "PrometheusVariableQueryEditor-VariableQuery",
    }
    variable = (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .query(query)
        .datasource(SOURCE)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
    )
    if not several:
        return variable.multi(False).include_all(False)
    everything = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).all_value(".*").current(everything)


def to_page() -> builders.DashboardLink:
    """Lead to the daemon's page."""
    return link("The daemon's page", "${page:raw}/", elsewhere=True)


def from_finding() -> list[dashboard.DashboardLink]:
    """Lead from a finding to what the daemon says of it, and to what a person does then."""
    runbook = link("Runbook", "${runbooks:raw}/DatabaseConnectionLeak.md", elsewhere=True)
    return [to_page().build(), runbook.build()]


def server_url(server: str) -> str:
    """Return the address of a server's dashboard; `server` is a macro of Grafana's without its braces."""
    return f"/d/{SERVER}?{_KEPT}&{_handed('server', server)}"


def leak_url(*, prefix: str, names: Sequence[str] = ("server", "database", "user", "application")) -> str:
    """Return the address of a client's dashboard; the client's parts are `prefix` and one of `names` each."""
    variables = ("server", "database", "user", "application")
    handed = (_handed(variable, prefix + name) for variable, name in zip(variables, names, strict=True))
    return f"/d/{LEAK}?{_KEPT}&{'&'.join(handed)}"


def _handed(variable: str, macro: str) -> str:
    return f"var-{variable}=${{{macro}:percentencode}}"


def _text(name: str, label: str, description: str, default: str) -> builders.TextBoxVariable:
    option = dashboard.VariableOption(selected=True, text=default, value=default)
    return (
        builders.TextBoxVariable(name)
        .label(label)
        .description(description)
        .default_value(default)
        .current(option)
        .options([option])
    )


def _alerts() -> dashboard.AnnotationQuery:
    expression = f'ALERTS{{alertname=~"Database.*", alertstate="firing", {chosen("server")}}}'
    return AlertAnnotations(
        name="Alerts", datasource=SOURCE, enable=True, hide=False, icon_color=RED, expr=expression, built_in=0
    )
