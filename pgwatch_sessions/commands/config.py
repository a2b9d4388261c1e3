"""`pgwatch-sessions config`: check the settings and print them."""

import argparse
import sys

from pgwatch_sessions.commands.command import EXIT_OK, Command, every_setting, load_settings
from pgwatch_sessions.settings.loading import to_yaml


def _config(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    if settings.web_config is not None:
        from pgwatch_sessions.web.access.web_config import load_web_config  # noqa: PLC0415  # few need it

        load_web_config(settings.web_config)
    sys.stdout.write(to_yaml(settings))
    return EXIT_OK


CONFIG = Command(
    name="config",
    purpose="check the configuration and print the settings in effect, secrets masked",
    settings=every_setting(),
    run=_config,
    epilog="""\
example:
  pgwatch-sessions config --config pgwatch-sessions.yaml

exit codes:
  0  the configuration is usable
  2  wrong usage or configuration; every error is printed with its place
""",
)
