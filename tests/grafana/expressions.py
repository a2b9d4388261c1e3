"""What the checked-in dashboards ask of Prometheus, and what it becomes once Grafana has put values in."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"

#: A variable, with a format or without.
VARIABLE = re.compile(r"\$\{(?P<braced>\w+)(?:\.[\w.]+)?(?::\w+)?\}|\$(?P<bare>\w+)|\[\[(?P<old>\w+)")
#: What a variable asks: of which series, and which label of theirs.
LABEL_VALUES = re.compile(r"label_values\((?P<selection>.+), (?P<label>\w+)\)")
#: Grafana's escapeRegex, behind the format `regex`.
_SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}/]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One query of a panel."""

    dashboard: str
    panel: str
    text: str
    #: What its values are called: in a legend, as a table's column, or as a variable's label.
    name: str = ""

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.dashboard}: {self.panel}"


def loaded() -> dict[str, dict[str, Any]]:
    """Return the checked-in dashboards by file name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels that show something: rows only divide."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[Expression]:
    """Yield every query of every panel; annotations have theirs besides."""
    for name, dashboard in loaded().items():
        for panel in dashboard["panels"]:
            columns = _columns(panel)
            for target in panel.get("targets", ()):
                column = columns.get(f"Value #{target['refId']}", columns.get("Value", ""))
                called = target.get("legendFormat") or column
                yield Expression(dashboard=name, panel=panel["title"], text=target["expr"], name=called)


def _columns(panel: Mapping[str, Any]) -> dict[str, str]:
    """Return what a table renames."""
    renamed = (each["options"].get("renameByName", {}) for each in panel.get("transformations", ()))
    return {field: column for names in renamed for field, column in names.items()}


def choices() -> Iterator[Expression]:
    """Yield the selection of every variable that lists a label's values; ValueError for a query of another form."""
    for name, dashboard in loaded().items():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                query = variable["query"]["query"]
                if not (parts := LABEL_VALUES.fullmatch(query)):
                    raise ValueError(f"{name}: ${variable['name']} is not label_values(metric, label): {query}")
                yield Expression(
                    dashboard=name, panel=f"${variable['name']}", text=parts["selection"], name=parts["label"]
                )


def annotations() -> Iterator[Expression]:
    """Yield the queries of annotations."""
    for name, dashboard in loaded().items():
        for annotation in dashboard["annotations"]["list"]:
            yield Expression(dashboard=name, panel=annotation["name"], text=annotation["expr"])


def filled(expression: str, values: Mapping[str, str | tuple[str, ...] | None], *, window: str) -> str:
    """Put values in as Grafana does: one, several, or None for All. `window` stands for ranges and intervals."""

    def value(match: re.Match[str]) -> str:
        if match["bare"]:
            return window
        chosen = values[match["braced"]]
        if chosen is None:
            return ".*"
        several = (chosen,) if isinstance(chosen, str) else chosen
        escaped = [_SPECIAL.sub(r"\\\g<0>", each) for each in several]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"

    return VARIABLE.sub(value, expression)
