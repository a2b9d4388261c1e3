"""`pgwatch-sessions config`: what is in effect."""

import argparse
import sys

from pgwatch_sessions.commands.command import EXIT_OK, Command, every_setting, load_settings
from pgwatch_sessions.settings import effective


def _config(options: argparse.Namespace) -> int:
    sys.stdout.write(effective(load_settings(options)))
    return EXIT_OK


CONFIG = Command(
    name="config",
    purpose="check the configuration and print what is in effect, secrets masked",
    settings=every_setting(),
    obey=_config,
    epilog="""\
example:
  pgwatch-sessions config --config pgwatch-sessions.yaml

exit codes:
  0  the configuration is usable
  2  wrong usage or configuration; every mistake is named with its place
""",
)
