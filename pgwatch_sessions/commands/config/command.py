"""The `config` command: its options, and what it does with them."""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pgwatch_sessions.commands.command import EXIT_OK, EXIT_UNSEEN, Command, every_setting, load_all
from pgwatch_sessions.commands.config.sources import table_lines, yaml_lines
from pgwatch_sessions.commands.config.trial import Check, Mark, checks_of
from pgwatch_sessions.commands.wiring import targets_of
from pgwatch_sessions.postgres.inspection import inspect
from pgwatch_sessions.settings.loading import LoadedSettings
from pgwatch_sessions.settings.model import Settings
from pgwatch_sessions.terminal import Colour, Paint, paint_for
from pgwatch_sessions.wording.labels import printable

_SIGNS: Mapping[Mark, str] = {Mark.OK: "✓", Mark.ADVICE: "!", Mark.FAILED: "✗"}
#: For a terminal that cannot show the others.
_ASCII_SIGNS: Mapping[Mark, str] = {Mark.OK: "ok", Mark.ADVICE: "! ", Mark.FAILED: "NO"}
_COLOURS: Mapping[Mark, Colour] = {Mark.OK: Colour.GREEN, Mark.ADVICE: Colour.YELLOW, Mark.FAILED: Colour.RED}


def _config(options: argparse.Namespace) -> int:
    loaded = load_all(options)
    sys.stderr.writelines(f"pgwatch-sessions: {notice}\n" for notice in loaded.notices)
    if loaded.settings.web_config is not None:
        from pgwatch_sessions.web.access.web_config import load_web_config  # noqa: PLC0415  # few need it

        load_web_config(loaded.settings.web_config)
    paint = paint_for(sys.stdout)
    if options.test:
        found = asyncio.run(_try(loaded.settings))
        sys.stdout.writelines(f"{line}\n" for line in _trial_lines(found, paint))
        failed = any(check.mark is Mark.FAILED for checks in found.values() for check in checks)
        return EXIT_UNSEEN if failed else EXIT_OK
    sys.stdout.writelines(f"{line}\n" for line in _settings_lines(loaded, options.format, paint))
    return EXIT_OK


def _settings_lines(loaded: LoadedSettings, output_format: str | None, paint: Paint) -> Iterable[str]:
    if (output_format or ("table" if sys.stdout.isatty() else "yaml")) == "table":
        return table_lines(loaded, paint)
    return yaml_lines(loaded)


async def _try(settings: Settings) -> Mapping[str, Sequence[Check]]:
    targets = targets_of(settings)
    found = await asyncio.gather(*(inspect(target, timeout=settings.timeout) for target in targets))
    return {target.name: tuple(checks_of(each)) for target, each in zip(targets, found, strict=True)}


def _trial_lines(found: Mapping[str, Sequence[Check]], paint: Paint) -> Iterator[str]:
    signs = _SIGNS if _can_show("".join(_SIGNS.values())) else _ASCII_SIGNS
    width = max(len(check.name) for checks in found.values() for check in checks)
    for server, checks in found.items():
        yield paint(printable(server), Colour.BOLD)
        for check in checks:
            yield f"  {paint(signs[check.mark], _COLOURS[check.mark])} {check.name:{width}}  {printable(check.text)}"


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test", action="store_true", help="connect to each server, and list what was found there")
    parser.add_argument(
        "--format",
        choices=("table", "yaml"),
        help="table, or yaml: a configuration file. Default: table on a terminal, otherwise yaml.",
    )


CONFIG = Command(
    name="config",
    purpose="check the configuration, print the settings in effect with their sources, or try the connections",
    description="""\
Checks the configuration. Prints each setting with its value and where that comes from, and what each connection is
made with: the DSN, a service file, libpq's variables. Secrets are masked.

With --test, connects to each server instead, and says of each thing that matters whether it is right (✓), should be
changed (!) or keeps the monitoring from working (✗), and what to do.""",
    settings=every_setting(),
    add_options=_add_options,
    run=_config,
    epilog="""\
examples:
  pgwatch-sessions config --config pgwatch-sessions.yaml
  pgwatch-sessions config --test -h db -U pgwatch_sessions -d postgres
  pgwatch-sessions config --format yaml > effective.yaml

exit codes:
  0  the configuration is usable; with --test: so is each server
  2  wrong usage or configuration; every error is printed with its place
  3  --test: a server cannot be reached, or cannot be monitored as it is
""",
)
