"""`pgwatch-sessions role-sql`: print the SQL that creates the monitoring role."""

import argparse
import sys

from pgwatch_sessions.assets.catalogue import ROLE_SQL as FILE
from pgwatch_sessions.assets.catalogue import read_asset
from pgwatch_sessions.commands.command import EXIT_OK, Command


def _role_sql(_options: argparse.Namespace) -> int:
    sys.stdout.write(read_asset(FILE))
    return EXIT_OK


ROLE_SQL = Command(
    name="role-sql",
    purpose="print the SQL that creates the monitoring role, for psql",
    description="""\
Prints the SQL that creates the role pgwatch_sessions on PostgreSQL 14 to 18. Run it as a superuser. You can run it
again. It sets no password: use \\password of psql.""",
    run=_role_sql,
    epilog="""\
examples:
  pgwatch-sessions role-sql | psql -X -1 -v ON_ERROR_STOP=1 -h db.example -U postgres
  pgwatch-sessions role-sql >create_monitor_role.sql

exit codes:
  0  printed
  2  wrong usage
""",
)
