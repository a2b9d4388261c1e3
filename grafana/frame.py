"""Build a dashboard from its panels: variables, alerts as annotations, links between dashboards, panel ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from grafana.panels import RED, SOURCE, Panel, link
from grafana.queries import POOL, matches_variable
from pgwatch_sessions.metrics.table import PREFIX

TAG = "pgwatch-sessions"
FLEET, SERVER, LEAK = "pgwatch-sessions-fleet", "pgwatch-sessions-server", "pgwatch-sessions-leak"
APPLICATION = "pgwatch-sessions-application"

PAGE = "http://localhost:9488"
#: Every daemon serves the runbooks.
RUNBOOKS = f"{PAGE}/runbooks"

#: What an alert is about; the labels that it lacks are left out.
_ALERT_LABELS = ("server", "database", "user", "application", POOL, "site")
#: Variables that every link between dashboards passes on unchanged.
_KEPT_VARIABLES = "${datasource:queryparam}&${page:queryparam}&${runbooks:queryparam}&${__url_time_range}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A row of a dashboard, with its title and the panels below it, on a grid of 24 columns."""

    title: str
    panels: Sequence[Panel]


class AlertAnnotations(dashboard.AnnotationQuery):
    """Our firing alerts as annotations, with the Prometheus data source's own fields, which the SDK lacks."""

    def to_json(self) -> dict[str, object]:
        """Return the annotation as Grafana stores it."""
        return {
            **super().to_json(),
            "titleFormat": "{{alertname}} ({{severity}})",
            "textFormat": " ".join(f"{{{{{label}}}}}" for label in _ALERT_LABELS),
            "tagKeys": "severity,server,application",
        }


class _PrebuiltAnnotation(builders.AnnotationQuery):
    """A builder, as the SDK requires one, that returns an existing annotation."""

    def __init__(self, annotation: dashboard.AnnotationQuery) -> None:
        self._internal = annotation


def build_dashboard(
    uid: str,
    title: str,
    description: str,
    *,
    variables: Sequence[builders.QueryVariable],
    sections: Sequence[Section],
    alerts: str | None = None,
) -> dashboard.Dashboard:
    """Return a dashboard with the frame that all dashboards share.

    `alerts` is the expression of the alerts that its charts mark; by default those on the chosen servers.
    """
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
        .link(page_link().icon("external link"))
        .link(link("Runbooks", "${runbooks:raw}/", new_tab=True).icon("doc"))
        .annotation(_PrebuiltAnnotation(_alerts(alerts or firing_alerts(matches_variable("server")))))
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in variables:
        frame.with_variable(variable)
    frame.with_variable(
        _text_variable("page", "Page", "Address of a daemon. Its page shows who leaks, why, and what to do.", PAGE)
    )
    frame.with_variable(_text_variable("runbooks", "Runbooks", "Address of the runbooks.", RUNBOOKS))
    for section in sections:
        frame.with_row(builders.Row(section.title))
        for panel in section.panels:
            frame.with_panel(panel)
    finished = frame.build()
    for number, placed in enumerate(finished.panels or (), start=1):
        placed.id_val = number
    return finished


def choice_variable(
    name: str, label: str, description: str, *, metric: str, where: Sequence[str] = (), multi: bool
) -> builders.QueryVariable:
    """Return a variable that lists the label values of a metric, filtered by the variables in `where`."""
    matchers = f"{{{', '.join(map(matches_variable, where))}}}" if where else ""
    query: dict[str, object] = {
        "qryType": 1,
        "query": f"label_values({PREFIX}{metric}{matchers}, {name})",
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
    if not multi:
        return variable.multi(False).include_all(False)
    everything = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).all_value(".*").current(everything)


def page_link() -> builders.DashboardLink:
    """Return a link to the daemon's page."""
    return link("The daemon's page", "${page:raw}/", new_tab=True)


def finding_links() -> list[dashboard.DashboardLink]:
    """Return links from a finding to the daemon's page and to the runbook."""
    runbook = link("Runbook", "${runbooks:raw}/DatabaseConnectionLeak", new_tab=True)
    return [page_link().build(), runbook.build()]


def server_url(server: str) -> str:
    """Return the address of a server's dashboard. `server` is a Grafana macro without its braces."""
    return f"/d/{SERVER}?{_KEPT_VARIABLES}&{_url_variable('server', server)}"


def leak_url(*, prefix: str, names: Sequence[str] = ("server", "database", "user", "application")) -> str:
    """Return the address of a client's dashboard. The macro of each variable is `prefix` and one of `names`."""
    variables = ("server", "database", "user", "application")
    client = (_url_variable(variable, prefix + name) for variable, name in zip(variables, names, strict=True))
    return f"/d/{LEAK}?{_KEPT_VARIABLES}&{'&'.join(client)}"


def application_url(application: str) -> str:
    """Return the address of an application's dashboard. `application` is a Grafana macro without its braces."""
    return f"/d/{APPLICATION}?{_KEPT_VARIABLES}&{_url_variable('application', application)}"


def firing_alerts(where: str) -> str:
    """Select the alerts on databases that fire, by a matcher."""
    return f'ALERTS{{alertname=~"Database.*", alertstate="firing", {where}}}'


def _url_variable(variable: str, macro: str) -> str:
    return f"var-{variable}=${{{macro}:percentencode}}"


def _text_variable(name: str, label: str, description: str, default: str) -> builders.TextBoxVariable:
    option = dashboard.VariableOption(selected=True, text=default, value=default)
    return (
        builders.TextBoxVariable(name)
        .label(label)
        .description(description)
        .default_value(default)
        .current(option)
        .options([option])
    )


def _alerts(expression: str) -> dashboard.AnnotationQuery:
    return AlertAnnotations(
        name="Alerts", datasource=SOURCE, enable=True, hide=False, icon_color=RED, expr=expression, built_in=0
    )
