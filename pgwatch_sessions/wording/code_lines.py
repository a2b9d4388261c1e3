"""Where a finding's sessions come from in the code: the site, and the lines that their statements' tags name."""

from typing import Any

from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.wording.labels import printable

#: Lines that a sentence names.
_MAX_NAMED = 3


def site_and_lines(finding: Finding) -> str:
    """Return the site with its lines of code: `/orders (orders.py:41 in read_order)`.

    If there are several, each has its number of sessions: `/orders (3 at orders.py:41 in read_order, 1 at jobs.py:8)`.
    """
    lines, site = finding.code_lines, printable(finding.site)
    if not lines:
        return site
    if lines[0].sessions == len(finding.evidence):
        return f"{site} ({printable(str(lines[0].code_line))})"
    named = [f"{each.sessions:,} at {printable(str(each.code_line))}" for each in lines[:_MAX_NAMED]]
    return f"{site} ({', '.join(named)}{', …' if len(lines) > _MAX_NAMED else ''})"


def first_line(finding: Finding) -> str:
    """Return the line of code that most of the sessions come from; empty if none is known."""
    return printable(str(finding.code_lines[0].code_line)) if finding.code_lines else ""


def code_line_fields(finding: Finding) -> list[dict[str, Any]]:
    """Return the lines of code as JSON values, most sessions first."""
    return [
        {
            "text": str(each.code_line),
            "file": each.code_line.file,
            "line": each.code_line.line,
            "func": each.code_line.function or None,
            "sessions": each.sessions,
        }
        for each in finding.code_lines
    ]
