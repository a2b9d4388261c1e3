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
#: Grafana's escapeRegex, behind the format `regex`.
_SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}/]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One query of a panel."""

    dashboard: str
    panel: str
    text: str

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.dashboard}: {self.panel}"


def loaded() -> dict[str, dict[str, Any]]:
    """Return the checked-in dashboards by file name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def expressions() -> Iterator[Expression]:
    """Yield every query of every panel; annotations have theirs besides."""
    for name, dashboard in loaded().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield Expression(dashboard=name, panel=panel["title"], text=target["expr"])


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
