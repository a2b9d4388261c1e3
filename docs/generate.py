"""Write the generated parts of the documentation: commands, settings, metrics, log events, promises.

    python docs/generate.py [FOLDER]

A generated part lies between two comments: `<!-- generated: NAME -->` and `<!-- /generated -->`. The text around it is
written by hand. Without FOLDER the pages are changed in place. With FOLDER they are written there, and a test compares
them with those of the repository.
"""

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from pgwatch_sessions.command_line import COMMANDS
from pgwatch_sessions.commands.command import Command
from pgwatch_sessions.core.findings import LeakKind, Severity, Verdict
from pgwatch_sessions.core.model import FailureReason, LimitScope, SessionState
from pgwatch_sessions.metrics.daemon_metrics import DAEMON_METRICS
from pgwatch_sessions.metrics.table import METRICS, PREFIX
from pgwatch_sessions.settings.listing import describe
from pgwatch_sessions.wording.events import EVENT_NAMES

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "SECURITY.md", "docs/commands.md", "docs/configuration.md", "docs/metrics.md")

_PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)
_NOTHING = "-"
#: The labels whose values come from a closed set.
_LABEL_VALUES: Mapping[str, type[StrEnum]] = {
    "state": SessionState,
    "kind": LeakKind,
    "severity": Severity,
    "diagnosis, client_diagnosis": Verdict,
    "scope": LimitScope,
    "reason": FailureReason,
}


def main() -> int:
    """Write every page. Return 1 if a part has no marker, or two, or if a marker names no part."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else ROOT
    parts = generated_parts()
    pages = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    placed = [part["name"] for text in pages.values() for part in _PART.finditer(text)]
    errors = [f"{name}: no page has this part; add <!-- generated: {name} -->" for name in parts if name not in placed]
    errors += [f"{name}: there is no such part; remove its marker" for name in placed if name not in parts]
    errors += [f"{name}: {placed.count(name)} markers; keep one" for name in parts if placed.count(name) > 1]
    if errors:
        sys.stderr.writelines(f"docs/generate.py: error: {error}\n" for error in errors)
        return 1
    for page, text in pages.items():
        target = folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_with_parts(text, parts), encoding="utf-8")
    return 0


def generated_parts() -> Mapping[str, str]:
    """Return the text of each part by its name."""
    return {
        "commands": _commands(),
        **{command.name: _command(command) for command in COMMANDS},
        "events": _events(),
        "settings": _settings(),
        "metrics": _metrics(),
        "label-values": _label_values(),
        "promises": _promises(),
    }


def _with_parts(text: str, parts: Mapping[str, str]) -> str:
    return _PART.sub(lambda part: f"{part[1]}\n{parts[part['name']]}\n\n{part[3]}", text)


def _commands() -> str:
    rows = (
        (f"[`{command.name}`](docs/commands.md#{command.name})", _sentence(command.purpose)) for command in COMMANDS
    )
    return _table(("command", "what it does"), rows)


def _command(command: Command) -> str:
    """Return the options, examples and exit codes of one command."""
    text = command.description or _sentence(command.purpose)
    parser = argparse.ArgumentParser(add_help=False)
    command.add_options(parser)
    options = [_option(action) for action in parser._actions]  # noqa: SLF001  # argparse has no public list of them
    return "\n\n".join(
        (
            _paragraph(_escaped(text)),
            *([_table(("option", "meaning"), options)] if options else []),
            *([_settings_of(command.settings)] if command.settings else []),
            *map(_section, command.epilog.strip().split("\n\n")),
        )
    )


def _option(action: argparse.Action) -> tuple[str, str]:
    choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else ""
    value = "" if action.nargs == 0 else str(action.metavar or choices)
    meaning = (action.help or "") % vars(action)
    required = " Required." if action.required and action.option_strings else ""
    return f"`{' '.join((*action.option_strings[-1:], value)).strip()}`", f"{_escaped(_sentence(meaning))}{required}"


def _settings_of(names: Collection[str]) -> str:
    every_setting = {setting.name: setting.option for setting in describe()}
    options = ", ".join(f"`{option}`" for name, option in every_setting.items() if name in names)
    which = "every setting" if every_setting.keys() <= set(names) else f"these settings: {options}"
    psql = ", psql's `-h`, `-p`, `-U` and `-d`" if "dsn" in names else ""
    return _paragraph(
        f"Options for [settings](configuration.md): `--config FILE`, `--secrets-dir DIR`{psql}, and {which}."
    )


def _section(text: str) -> str:
    """Return the examples or the exit codes of a command's help."""
    heading, *lines = text.splitlines()
    if heading != "exit codes:":
        return "\n".join(
            (_sentence(heading.removesuffix(":"), end=":"), "", "```", *(line[2:] for line in lines), "```")
        )
    codes = re.findall(r"^  (\d+) +(.+(?:\n {3,}.+)*)", "\n".join(lines), re.MULTILINE)
    return _table(("exit code", "meaning"), ((code, _escaped(" ".join(meaning.split()))) for code, meaning in codes))


def _events() -> str:
    rows = ((f"`{name}`", _escaped((event.__doc__ or "").splitlines()[0])) for event, name in EVENT_NAMES.items())
    return _table(("event", "when"), rows)


def _settings() -> str:
    rows = (
        (
            f"`{setting.name}`",
            f"`{setting.placeholder}`".replace("|", r"\|"),
            f"`{setting.default}`" if setting.default else _NOTHING,
            _escaped(setting.description),
        )
        for setting in describe()
    )
    return _table(("setting", "value", "default", "meaning"), rows)


def _metrics() -> str:
    rows = [(f"`{metric.name}`", metric.kind, _codes(metric.labels), _escaped(metric.help)) for metric in METRICS]
    rows += [
        (
            f"`{metric.name}`",
            metric.kind,
            _NOTHING,
            _escaped(metric.help) + ("" if "server" in metric.labels else " No label `server`."),
        )
        for metric in DAEMON_METRICS
    ]
    rows.append(("`build_info`", "info", _NOTHING, "Version of pgwatch-sessions. It has no label `server`."))
    return f"Every name begins with `{PREFIX}`.\n\n{_table(('metric', 'type', 'labels', 'meaning'), rows)}"


def _label_values() -> str:
    return _table(
        ("label", "values"), ((_codes(label.split(", ")), _codes(kind)) for label, kind in _LABEL_VALUES.items())
    )


def _promises() -> str:
    """Return each promise with the tests that show it: those that `@pytest.mark.promise("…")` marks."""
    rows: list[tuple[str, str, str]] = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                shown = (ast.get_docstring(function) or "").split("\n\n", maxsplit=1)[0]
                link = f"[`{function.name}`]({path.relative_to(ROOT).as_posix()})"
                rows += [(promise, link, _escaped(" ".join(shown.split()))) for promise in _marks(function)]
    rows.sort(key=lambda row: row[0])
    promises = ["", *(promise for promise, *_ in rows)]
    cells = (
        (f"**{promise}**" if promise != former else "", link, shown)
        for former, (promise, link, shown) in zip(promises, rows, strict=False)
    )
    return _table(("promise", "test", "what it shows"), cells)


def _marks(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterable[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.promise":
            yield ast.literal_eval(decorator.args[0])


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or _NOTHING


def _sentence(text: str, end: str = ".") -> str:
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}{end}"


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(map(_row, (head, ("---",) * len(head), *rows)))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Escape what Markdown would take for formatting; text between backticks stays as it is."""
    return re.sub(r"(`[^`]*`)|([|*<])", lambda match: match[1] or rf"\{match[2]}", text)


if __name__ == "__main__":
    sys.exit(main())
