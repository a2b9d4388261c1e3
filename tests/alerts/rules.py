"""The rule files as values, and the programs that judge them."""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "alerts"
RULE_FILES = tuple(sorted(ALERTS.glob("*.yml")))
TEST_FILES = tuple(sorted((ALERTS / "tests").glob("*.yml")))
#: A metric of ours, or a recorded one.
METRIC = re.compile(r"(?<![\w:])(?:\w+:)?(?:pgwatch_sessions|db)_\w+(?::\w+)?")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_LABELS = re.compile(r"{[^{}]*}|\b(?:without|by|on|ignoring) \([^)]*\)")
_TEMPLATE = re.compile(r"{{.*?}}", re.DOTALL)

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt install prometheus"
)
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="amtool is not installed: apt install prometheus-alertmanager"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, and where it stands."""

    file: Path
    #: Its place among all rules of the file.
    index: int
    #: The alert's name, or that of the recorded series.
    name: str
    is_alert: bool
    content: dict[str, Any]

    @property
    def expr(self) -> str:
        """The PromQL."""
        return str(self.content["expr"])


def loaded(file: Path) -> Any:
    """Read a YAML file; what aliases name is copied, so that each can be changed by itself."""
    return json.loads(_as_json(file))


def write_without_intervals(folder: Path) -> list[str]:
    """Write the rule files with all groups at Prometheus' own interval; return the paths."""
    for file in RULE_FILES:
        content = loaded(file)
        for group in content["groups"]:
            group.pop("interval", None)
        (folder / file.name).write_text(json.dumps(content))  # JSON is YAML
    return [str(folder / file.name) for file in RULE_FILES]


@functools.cache
def _as_json(file: Path) -> str:
    """Read it once, since YAML takes long to read."""
    return json.dumps(yaml.safe_load(file.read_text()))


def rules() -> Iterator[Rule]:
    """Read every rule of every file."""
    for file in RULE_FILES:
        contents = [rule for group in loaded(file)["groups"] for rule in group["rules"]]
        for index, content in enumerate(contents):
            is_alert = "alert" in content
            name = content["alert" if is_alert else "record"]
            yield Rule(file=file, index=index, name=name, is_alert=is_alert, content=content)


def metrics_in(expr: str) -> set[str]:
    """Return the metrics that PromQL reads, without what stands in it as a label or as a label's value."""
    return set(METRIC.findall(_LABELS.sub("", _QUOTED.sub("", expr))))


def metrics_in_template(text: str) -> set[str]:
    """Return the metrics that an annotation asks for."""
    return {metric for action in _TEMPLATE.findall(text) for metric in METRIC.findall(action)}


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of Prometheus' to its end."""
    # Its garbage is collected less often: a fifth of the time of the many short runs here.
    env = {**os.environ, "GOGC": "400"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
