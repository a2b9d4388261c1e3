"""The rules, each with one thing wrong: a test of the rules that passes with one of them tests nothing."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.alerts.rules import ALERTS, RULE_FILES, TEST_FILES, Rule, loaded, metrics_in, metrics_in_template, ran, rules

_NUMBER = re.compile(r"(?<![\w.:\[\"])\d+(?:\.\d+)?(?![\w.:])")
_COMPARISON = re.compile(r" (?:[<>]=?|[=!]=) [\d.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One rule with one thing wrong."""

    rule: Rule
    #: Which part of it, as in `expr` or `annotations.summary`, and what it is now.
    part: str
    text: str | None

    def __str__(self) -> str:
        """Say what was done."""
        return (
            f"{self.rule.file.name}: {self.rule.name} {self.rule.content.get('labels', '')}: {self.part}: {self.text}"
        )


def mutants() -> Iterator[Mutant]:
    """Rename each metric, move and remove each threshold, and remove each time."""
    texts = set()
    for rule in rules():
        for text in _wrong_expressions(rule.expr):
            yield Mutant(rule=rule, part="expr", text=text)
        for key, text in rule.content.get("annotations", {}).items():
            if text in texts:
                continue  # an alias in the file
            texts.add(text)
            for metric in sorted(metrics_in_template(text)):
                yield Mutant(rule=rule, part=f"annotations.{key}", text=_renamed(text, metric))
        for part in ("for", "keep_firing_for"):
            if part in rule.content:
                yield Mutant(rule=rule, part=part, text=None)


def _wrong_expressions(expr: str) -> Iterator[str]:
    for metric in sorted(metrics_in(expr)):
        yield _renamed(expr, metric)
    for match in _NUMBER.finditer(expr):
        for other in _neighbours(float(match[0])):
            yield f"{expr[: match.start()]}{other:g}{expr[match.end() :]}"
    for match in _COMPARISON.finditer(expr):
        yield expr[: match.start()] + expr[match.end() :]


def _renamed(text: str, metric: str) -> str:
    return re.sub(rf"(?<![\w:]){re.escape(metric)}(?![\w:])", f"{metric}x", text)


def _neighbours(number: float) -> tuple[float, float]:
    step = 1 if number.is_integer() and number <= 10 else number / 50
    return number - step, number + step


def survivors(folder: Path, found: Iterable[Mutant]) -> list[Mutant]:
    """Return the mutants under which all tests of the rules pass; `folder` is where they are tried."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tried = pool.map(
            lambda numbered: (numbered[1], _survives(folder / str(numbered[0]), numbered[1])), enumerate(found)
        )
        return [mutant for mutant, survived in tried if survived]


def _survives(folder: Path, mutant: Mutant) -> bool:
    (folder / "tests").mkdir(parents=True)
    for file in RULE_FILES:
        (folder / file.name).symlink_to(file)
    for file in TEST_FILES:
        (folder / "tests" / file.name).symlink_to(file)
    target = folder / mutant.rule.file.name
    target.unlink()
    target.write_text(json.dumps(_with(mutant)))  # JSON is YAML
    order = sorted(TEST_FILES, key=_nearness(mutant.rule))
    survived = all(ran("promtool", "test", "rules", folder / "tests" / file.name).returncode == 0 for file in order)
    shutil.rmtree(folder)
    return survived


def _with(mutant: Mutant) -> Any:
    document = loaded(mutant.rule.file)
    content: Any = [rule for group in document["groups"] for rule in group["rules"]][mutant.rule.index]
    *path, last = mutant.part.split(".")
    for key in path:
        content = content[key]
    if mutant.text is None:
        del content[last]
    else:
        content[last] = mutant.text
    return document


def _nearness(rule: Rule) -> Callable[[Path], tuple[bool, bool, bool]]:
    """Order the tests so that the one that should fail comes first."""
    readers = {each.name for each in rules() if each.is_alert and rule.name in each.expr}
    own = (
        rule.name
        if rule.is_alert
        else next(iter(readers), "blind" if rule.file.name.startswith("alert") else "recording")
    )
    return lambda file: (file.stem != own, file.stem != "blind", file.parent == ALERTS)
