"""`assert_no_leaks`, in a process of its own."""

from pathlib import Path

from tests.pools.testing.suite_runs import copy_suite, run_suite
from tests.support.servers import Database


def test_many_calls_at_a_time(database: Database, tmp_path: Path) -> None:
    """Sync and async functions, errors, and wrong use: with and without the plugin's checks."""
    copy_suite("load", tmp_path)
    for arguments in ((), ("--connection-leaks=warn",)):
        run = run_suite(tmp_path, *arguments, dsn=database.dsn())
        assert run.exit_code == 0, run.output
        assert run.counts["passed"] == 7
