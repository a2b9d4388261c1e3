"""Read the queries of the checked-in dashboards, and fill in variables as Grafana does."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"

#: A Grafana variable, with or without a format.
VARIABLE = re.compile(r"\$\{(?P<braced>\w+)(?:\.[\w.]+)?(?::\w+)?\}|\$(?P<bare>\w+)|\[\[(?P<old>\w+)")
#: The query of a variable: the series, and one of their labels.
LABEL_VALUES = re.compile(r"label_values\((?P<selection>.+), (?P<label>\w+)\)")
#: The characters that Grafana escapes in the format `regex`.
_SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}/]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One query of a panel, variable or annotation."""

    dashboard: str
    panel: str
    text: str
    #: The legend or table column of its values, or the label that a variable lists.
    name: str = ""

    @property
    def place(self) -> str:
        """The dashboard and the panel."""
        return f"{self.dashboard}: {self.panel}"


def load_dashboards() -> dict[str, dict[str, Any]]:
    """Return the checked-in dashboards by file name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all panels except rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[Expression]:
    """Yield every query of every panel."""
    for name, dashboard in load_dashboards().items():
        for panel in dashboard["panels"]:
            columns = _columns(panel)
            for target in panel.get("targets", ()):
                column = columns.get(f"Value #{target['refId']}", columns.get("Value", ""))
                legend = target.get("legendFormat") or column
                yield Expression(dashboard=name, panel=panel["title"], text=target["expr"], name=legend)


def _columns(panel: Mapping[str, Any]) -> dict[str, str]:
    """Return the column titles of a table by field name."""
    renamings = (each["options"].get("renameByName", {}) for each in panel.get("transformations", ()))
    return {field: column for names in renamings for field, column in names.items()}


def variable_queries() -> Iterator[Expression]:
    """Yield the query of every variable. ValueError if it is not of the form label_values(metric, label)."""
    for name, dashboard in load_dashboards().items():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                query = variable["query"]["query"]
                if not (parts := LABEL_VALUES.fullmatch(query)):
                    raise ValueError(f"{name}: ${variable['name']} is not label_values(metric, label): {query}")
                yield Expression(
                    dashboard=name, panel=f"${variable['name']}", text=parts["selection"], name=parts["label"]
                )


def annotation_queries() -> Iterator[Expression]:
    """Yield the query of every annotation."""
    for name, dashboard in load_dashboards().items():
        for annotation in dashboard["annotations"]["list"]:
            yield Expression(dashboard=name, panel=annotation["name"], text=annotation["expr"])


def fill_variables(expression: str, values: Mapping[str, str | tuple[str, ...] | None], *, window: str) -> str:
    """Replace variables as Grafana does, by one value, several, or None for All. `window` replaces time ranges."""

    def value(match: re.Match[str]) -> str:
        if match["bare"]:
            return window
        selected = values[match["braced"]]
        if selected is None:
            return ".*"
        several = (selected,) if isinstance(selected, str) else selected
        escaped = [_SPECIAL.sub(r"\\\g<0>", each) for each in several]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

    return VARIABLE.sub(value, expression)
