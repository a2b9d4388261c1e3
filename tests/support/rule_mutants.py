"""The rules, each with one thing wrong: a test of the rules that passes with one of them tests nothing."""

import functools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.alert_rules import (
    RULE_FILES,
    TEST_FILES,
    Rule,
    load_yaml,
    metrics_in,
    metrics_in_template,
    rules,
    run_tool,
)

_NUMBER = re.compile(r"(?<![\w.:\[\"+%])\d+(?:\.\d+)?(?![\w.:])")
_COMPARISON = re.compile(r" ([<>]=?|[!=]=) (?:[\d.]+|Inf)")
_EDGE = {">": ">=", ">=": ">", "<": "<=", "<=": "<"}
_RANGE = re.compile(r"\[(\d+)([mh])\]")
_MATCHER = re.compile(r"(?<=[{,])[a-z_]+(?:=|!=|=~|!~)\"([^\"]+)\"(?=[,}])")
_AGGREGATION = re.compile(r"\b(?:max|min)(?=(?: without \([^)]*\))? ?\()")
_OTHER = {"max": "min", "min": "max"}
_LABELS = re.compile(r"(?:(?<=without \()(?:kind|database|state|version)|(?<=\bon \()\w)[^)]*(?=\))")
#: What follows `and` and `unless`, as far as the rules have it.
_CONDITION = re.compile(
    r"\s+(?:and|unless) (?:(?:ignoring|on) \([^)]*\) )?(?:[a-z_]+:)?\w+(?::\w+)?(?: == 1)?(?=[\s)])"
)
_TIME = re.compile(r"(\d+)m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One rule with one thing wrong."""

    rule: Rule
    #: Which part of it, as in `expr` or `annotations.summary`, and what it is now; None when it is gone.
    part: str
    text: str | None

    def __str__(self) -> str:
        """Say what was done."""
        return (
            f"{self.rule.file.name}: {self.rule.name} {self.rule.content.get('labels', '')}: {self.part}: {self.text}"
        )


def mutants() -> Iterator[Mutant]:
    """Rename each metric; move, turn and remove each threshold, time, label and condition."""
    annotations = set()
    for rule in rules():
        for text in dict.fromkeys(wrong for change in _CHANGES for wrong in change(rule.expr)):
            yield Mutant(rule=rule, part="expr", text=text)
        for key, text in rule.content.get("annotations", {}).items():
            if text not in annotations:  # else an alias in the file
                annotations.add(text)
                for wrong in (*_renamed_in_queries(text), *_other_ranges(text), *_other_comparisons(text)):
                    yield Mutant(rule=rule, part=f"annotations.{key}", text=wrong)
        for part in ("for", "keep_firing_for"):
            if match := _TIME.fullmatch(rule.content.get(part, "")):
                minutes = int(match[1])
                yield Mutant(rule=rule, part=part, text=f"{minutes - 1}m" if minutes > 1 else None)
                yield Mutant(rule=rule, part=part, text=f"{minutes + 1}m")


def _renamed_metrics(expr: str) -> Iterator[str]:
    # Not those of what keeps a value while its server is not seen: that goes as a whole, with the other alternatives.
    shown = "\n".join(each for each in expr.split("\nor\n") if "_blind:seconds" not in each)
    yield from (_renamed(expr, metric) for metric in sorted(metrics_in(shown)))


def _renamed_in_queries(template: str) -> Iterator[str]:
    yield from (_renamed(template, metric) for metric in sorted(metrics_in_template(template)))


def _renamed(text: str, metric: str) -> str:
    return re.sub(rf"(?<![\w:]){re.escape(metric)}(?![\w:])", f"{metric}x", text)


def _other_numbers(expr: str) -> Iterator[str]:
    for match in _NUMBER.finditer(expr):
        number = float(match[0])
        step = 1 if number.is_integer() and number <= 10 else number / 50
        for other in (number - step, number + step):
            yield _with_span(expr, match, f"{other:g}")


def _other_comparisons(expr: str) -> Iterator[str]:
    for match in _COMPARISON.finditer(expr):
        # Without its comparison a rule tells of more than with its edge turned, or with its number moved.
        turned = _EDGE.get(match[1])
        yield _with_span(expr, match, match[0].replace(match[1], turned) if turned else "")


def _other_ranges(text: str) -> Iterator[str]:
    for match in _RANGE.finditer(text):
        minutes = int(match[1]) * (60 if match[2] == "h" else 1)
        for other in (minutes // 2, minutes * 2):
            yield _with_span(text, match, f"[{other}m]")


def _other_matchers(expr: str) -> Iterator[str]:
    for match in _MATCHER.finditer(expr):
        yield _with_span(expr, match, "")
        if "|" in match[1]:
            choices = match[1].split("|")
            for left_out in choices:
                rest = "|".join(choice for choice in choices if choice != left_out)
                yield _with_span(expr, match, match[0].replace(match[1], rest))


def _other_aggregations(expr: str) -> Iterator[str]:
    for match in _AGGREGATION.finditer(expr):
        yield _with_span(expr, match, _OTHER[match[0]])


def _other_labels(expr: str) -> Iterator[str]:
    for match in _LABELS.finditer(expr):
        labels = match[0].split(", ")
        for left_out in labels:
            yield _with_span(expr, match, ", ".join(label for label in labels if label != left_out))


def _without_conditions(expr: str) -> Iterator[str]:
    for match in _CONDITION.finditer(expr):
        yield _with_span(expr, match, "")


def _without_alternatives(expr: str) -> Iterator[str]:
    alternatives = expr.split("\nor\n")
    for left_out in alternatives if len(alternatives) > 1 else ():
        yield "\nor\n".join(each for each in alternatives if each != left_out)


def _with_span(text: str, match: re.Match[str], other: str) -> str:
    return f"{text[: match.start()]}{other}{text[match.end() :]}"


_CHANGES: tuple[Callable[[str], Iterator[str]], ...] = (
    _renamed_metrics,
    _other_numbers,
    _other_comparisons,
    _other_ranges,
    _other_matchers,
    _other_aggregations,
    _other_labels,
    _without_conditions,
    _without_alternatives,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTest:
    """One test of a file in alerts/tests, by itself: a mutant is mostly found by one, and the others take time."""

    file: Path
    name: str
    #: A whole file for promtool.
    text: str
    #: The rules that it names, and those that these read.
    rules: frozenset[str]

    def __str__(self) -> str:
        """Say which test it is."""
        return f"{self.file.stem}: {self.name}"


@functools.cache
def rule_tests() -> tuple[RuleTest, ...]:
    """Take the files in alerts/tests apart."""
    return tuple(test for file in TEST_FILES for test in _tests_of(file))


def _tests_of(file: Path) -> Iterator[RuleTest]:
    # As nodes, which keep what promtool and PyYAML read differently, such as 0x10, and what is used by an alias.
    document: Any = yaml.compose(file.read_text(), Loader=yaml.CSafeLoader)
    [tests] = [value for key, value in document.value if key.value == "tests"]
    for node in tuple(tests.value):
        tests.value = [node]
        [name] = [value.value for key, value in node.value if key.value == "name"]
        text = yaml.serialize(document, Dumper=yaml.CSafeDumper, allow_unicode=True)
        yield RuleTest(file=file, name=name, text=text, rules=_needed(text))


def _needed(text: str) -> frozenset[str]:
    read: dict[str, set[str]] = {}
    for rule in rules():
        asked = metrics_in(rule.expr).union(*map(metrics_in_template, rule.content.get("annotations", {}).values()))
        read[rule.name] = read.get(rule.name, set()) | asked
    if 'alertname=~"Database.*"' in text:
        return frozenset(read)
    names, new = frozenset[str](), frozenset(name for name in read if name in text)
    while new:
        names |= new
        new = frozenset(name for known in new for name in read[known] if name in read) - names
    return names


def failing_alone(folder: Path) -> list[RuleTest]:
    """Return the tests that fail with no more rules than they are about, none of them wrong."""
    documents = {file: load_yaml(file) for file in RULE_FILES}
    passed = _passed(folder, [(test, documents) for test in rule_tests()])
    return [test for test, has_passed in zip(rule_tests(), passed, strict=True) if not has_passed]


def survivors(folder: Path, rule: Rule, wrong: Sequence[Mutant]) -> Sequence[Mutant]:
    """Return the mutants of a rule under which all tests of the rules pass; `folder` is where they are tried."""
    documents = {file: load_yaml(file) for file in RULE_FILES}
    for number, test in enumerate(sorted(rule_tests(), key=_nearness(rule))):
        if rule.name in test.rules and wrong:
            changed = [(test, documents | {rule.file: _with(mutant)}) for mutant in wrong]
            passed = _passed(folder / str(number), changed)
            wrong = [mutant for mutant, has_passed in zip(wrong, passed, strict=True) if has_passed]
    return wrong


def _nearness(rule: Rule) -> Callable[[RuleTest], tuple[bool, bool, bool, int]]:
    """Order the tests so that the one that should fail comes early: the alert's own, then those of many alerts."""
    alerts = {each.name for each in rules() if each.is_alert}
    own = {rule.name} if rule.is_alert else {each.name for each in rules() if each.is_alert and rule.name in each.expr}
    return lambda test: (
        test.file.stem in alerts - own,
        test.file.stem == "forgotten_after_a_day",  # it plays a day, which takes as long as ten others
        test.file.stem not in own,
        len(test.rules),
    )


def _passed(folder: Path, cases: Sequence[tuple[RuleTest, Mapping[Path, Any]]]) -> list[bool]:
    """Run tests, each on rules of its own, in one process; it gets no more rules than it is about, which is faster."""
    files = []
    for number, (test, documents) in enumerate(cases):
        place = folder / str(number)
        (place / "tests").mkdir(parents=True)
        for file, document in documents.items():
            (place / file.name).write_text(json.dumps(_of(test, document)))  # JSON is YAML
        files.append(place / "tests" / test.file.name)
        files[-1].write_text(test.text)
    _, *results = run_tool("promtool", "test", "rules", *files).stdout.split("Unit Testing: ")
    shutil.rmtree(folder)
    assert len(results) == len(files)
    return ["SUCCESS" in result for result in results]


def _of(test: RuleTest, document: Any) -> Any:
    """Leave of a file what a test is about: without annotations, if it looks at none."""
    annotated = "exp_annotations" in test.text
    kept = [
        {key: value for key, value in rule.items() if annotated or key != "annotations"}
        for group in document["groups"]
        for rule in group["rules"]
        if rule.get("alert", rule.get("record")) in test.rules
    ]
    return {"groups": [{"name": "kept", "rules": kept}]}


def _with(mutant: Mutant) -> Any:
    document = load_yaml(mutant.rule.file)
    content: Any = [rule for group in document["groups"] for rule in group["rules"]][mutant.rule.index]
    *path, last = mutant.part.split(".")
    for key in path:
        content = content[key]
    if mutant.text is None:
        del content[last]
    else:
        content[last] = mutant.text
    return document
