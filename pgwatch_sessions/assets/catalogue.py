"""Which files travel with the package, and where they are read from."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

ROLE_SQL = "deploy/sql/create_monitor_role.sql"
RUNBOOKS = "alerts/runbooks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Files for one purpose."""

    name: str
    purpose: str
    #: All files that are directly in these folders. The folders are those of the project.
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file that travels with the package."""

    #: As in the project, for example `alerts/alert_rules.yml`, so that links between the files work.
    path: str
    text: str


GROUPS = (
    Group(name="rules", purpose="alerting and recording rules for Prometheus", folders=("alerts",)),
    Group(name="rule-tests", purpose="unit tests of the rules, for promtool test rules", folders=("alerts/tests",)),
    Group(
        name="runbooks",
        purpose="what to do about each alert; /runbooks/ of the daemon shows them",
        folders=(RUNBOOKS,),
    ),
    Group(
        name="dashboards",
        purpose="Grafana dashboards, and configuration that provisions them",
        folders=("grafana/dashboards", "grafana/provisioning/dashboards", "grafana/provisioning/datasources"),
    ),
    Group(name="prometheus", purpose="a Prometheus that scrapes the daemon", folders=("deploy/prometheus",)),
    Group(name="alertmanager", purpose="routes, receivers and inhibitions", folders=("deploy/alertmanager",)),
    Group(name="role", purpose="SQL of the monitoring role; role-sql prints it", folders=("deploy/sql",)),
    Group(name="config", purpose="a configuration file with every setting", folders=("config",)),
    Group(name="systemd", purpose="a hardened unit and its environment file", folders=("deploy/systemd",)),
    Group(name="ci", purpose="a CI job that fails if a test leaves a leak", folders=("deploy/ci",)),
)


def assets_of(group: Group) -> Iterator[Asset]:
    """Yield the files of a group, by path."""
    for folder in group.folders:
        for file in sorted(_root().joinpath(folder).iterdir(), key=lambda each: each.name):
            if file.is_file() and not file.name.startswith("."):
                yield Asset(path=f"{folder}/{file.name}", text=file.read_text(encoding="utf-8"))


def read_asset(path: str) -> str:
    """Return the text of one file."""
    return _root().joinpath(path).read_text(encoding="utf-8")


def runbook_names() -> Collection[str]:
    """Return the names of the runbooks, which are those of the alerts, sorted."""
    files = _root().joinpath(RUNBOOKS).iterdir()
    return sorted(file.name.removesuffix(".md") for file in files if file.name.endswith(".md"))


def read_runbook(name: str) -> str:
    """Return the Markdown of a runbook. The name must be one of `runbook_names()`."""
    return read_asset(f"{RUNBOOKS}/{name}.md")


def _root() -> Traversable:
    """Return the folder with all these files: in an installed package this one, in a checkout the project's."""
    packaged = resources.files(__package__)
    return packaged if packaged.joinpath("alerts").is_dir() else Path(__file__).parents[2]
