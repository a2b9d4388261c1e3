"""`pgwatch-sessions completion`: print the script with which a shell completes commands and options."""

import argparse
import re
import sys

import shtab

from pgwatch_sessions.commands.command import EXIT_OK, Command

_SHELLS = ("bash", "zsh", "fish")
#: What a shell completes for an option with this placeholder.
_COMPLETED = {"FILE": shtab.FILE, "PATH": shtab.FILE, "DIR": shtab.DIRECTORY}
_CHOICES = re.compile(r"{([\w-]+(?:,[\w-]+)+)}")


def _completion(options: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = options.parser
    _prepare(parser)
    script: str = shtab.complete(parser, options.shell)
    sys.stdout.write(script)
    return EXIT_OK


def _prepare(parser: argparse.ArgumentParser) -> None:
    """Tell shtab what the parser's placeholders mean: files, folders and choices."""
    for action in parser._actions:  # noqa: SLF001  # argparse has no public list of them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # nor a public name of this class
            for choice in action._choices_actions:  # noqa: SLF001  # the commands with their one-line help
                action.choices[choice.dest].description = choice.help
            for subparser in action.choices.values():
                _prepare(subparser)
        elif isinstance(action.metavar, str):
            if complete := _COMPLETED.get(action.metavar):
                action.complete = complete  # type: ignore[attr-defined]  # shtab reads it
            elif choices := _CHOICES.fullmatch(action.metavar):
                action.choices = choices[1].split(",")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, help="the shell")


COMPLETION = Command(
    name="completion",
    purpose="print the script with which bash, zsh or fish completes commands and options",
    add_options=_add_options,
    run=_completion,
    epilog="""\
to install it in bash, with the package bash-completion:
  mkdir -p ~/.local/share/bash-completion/completions
  pgwatch-sessions completion bash >~/.local/share/bash-completion/completions/pgwatch-sessions

in zsh, if ~/.zshrc has fpath=(~/.zfunc $fpath) before compinit:
  mkdir -p ~/.zfunc
  pgwatch-sessions completion zsh >~/.zfunc/_pgwatch-sessions

in fish:
  mkdir -p ~/.config/fish/completions
  pgwatch-sessions completion fish >~/.config/fish/completions/pgwatch-sessions.fish

to try it in this bash:
  source <(pgwatch-sessions completion bash)

exit codes:
  0  printed
  2  wrong usage
""",
)
