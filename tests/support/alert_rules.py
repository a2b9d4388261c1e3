"""Read the rule files, and run promtool and amtool on them."""

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
#: One of the daemon's metrics or of a pool's, or a recorded series. After a dot it is a label, in a template.
METRIC = re.compile(r"(?<![\w:.])(?:\w+:)?(?:pgwatch_sessions|db)_\w+(?::\w+)?")
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
    """One alerting or recording rule, and its position in its file."""

    file: Path
    #: Its index among all rules of the file.
    index: int
    #: The name of the alert, or of the recorded series.
    name: str
    is_alert: bool
    content: dict[str, Any]

    @property
    def expr(self) -> str:
        """The rule's PromQL expression."""
        return str(self.content["expr"])


def load_yaml(file: Path) -> Any:
    """Read a YAML file. YAML aliases become copies, so that a test can change one of them alone."""
    return json.loads(_as_json(file))


def write_without_intervals(folder: Path) -> list[str]:
    """Write the rule files without the groups' own evaluation intervals; return the paths."""
    for file in RULE_FILES:
        content = load_yaml(file)
        for group in content["groups"]:
            group.pop("interval", None)
        (folder / file.name).write_text(json.dumps(content))  # JSON is YAML
    return [str(folder / file.name) for file in RULE_FILES]


@functools.cache
def _as_json(file: Path) -> str:
    """Cache each file as JSON, because parsing YAML is slow."""
    return json.dumps(yaml.safe_load(file.read_text()))


def rules() -> Iterator[Rule]:
    """Yield every rule of every file."""
    for file in RULE_FILES:
        contents = [rule for group in load_yaml(file)["groups"] for rule in group["rules"]]
        for index, content in enumerate(contents):
            is_alert = "alert" in content
            name = content["alert" if is_alert else "record"]
            yield Rule(file=file, index=index, name=name, is_alert=is_alert, content=content)


def metrics_in(expr: str) -> set[str]:
    """Return the metrics that a PromQL expression reads. Labels and label values are left out."""
    return set(METRIC.findall(_LABELS.sub("", _QUOTED.sub("", expr))))


def metrics_in_template(text: str) -> set[str]:
    """Return the metrics that the queries of an annotation read."""
    return {metric for action in _TEMPLATE.findall(text) for metric in METRIC.findall(action)}


def run_tool(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool or amtool to its end."""
    # Less frequent garbage collection saves a fifth of the time of the many short runs.
    env = {**os.environ, "GOGC": "400"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
