"""The table of faults at the end of a run."""

from collections.abc import Sequence

import pytest

from tests.bench.tables import table

_HEADER = ("", "said", "after, s", "recovered, s", "sessions of ours", "left over", "")
#: What the table says of each of pytest's outcomes.
_VERDICTS = {"passed": "ok", "failed": "WRONG"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one row for each fault: what was said of it and when, and how the daemon recovered."""
    rows: list[Sequence[object]] = []
    for outcome, verdict in _VERDICTS.items():
        for report in terminalreporter.stats.get(outcome, ()):
            rows += [
                (*row[:5], row[5] or "nothing", verdict) for name, row in report.user_properties if name == "fault"
            ]
    if rows:
        title = "faults: seconds from the fault to the first failed poll, and from its end until the server is seen"
        terminalreporter.write_line("")
        terminalreporter.write_line(table(title, _HEADER, sorted(rows, key=lambda row: str(row[0]))))
