"""The argparse parser of the program: errors in one line, and `-h` free for psql's --host."""

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and the way to the help. `-h` is psql's --host, so help is only --help."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, add_help=False)
        self.add_argument("--help", action="help", help="show this help and exit")

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Print the help. argparse itself would ignore that nobody reads it, if it is long."""
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Print the error and where the help is, and exit."""
        text = re.sub(r"^argument (?:-\w/)?(\S+): ", r"\1: ", message)
        self.exit(2, f"pgwatch-sessions: error: {text}\nTry `{self.prog} --help`.\n")
