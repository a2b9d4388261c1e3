"""Format numbers as aligned tables, and limits with the measured values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit for one measured number."""

    what: str
    measured: float
    bound: float
    unit: str = ""
    #: Whether the bound is a minimum instead of a maximum.
    least: bool = False

    @property
    def kept(self) -> bool:
        """Whether the number respects the bound."""
        return self.measured >= self.bound if self.least else self.measured <= self.bound


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with the first column left-aligned and the others right-aligned. `number` formats floats."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return "\n".join([title, *(line.rstrip() for line in lines), ""])


def limits(*checks: Limit) -> str:
    """Return a table of limits, each marked `ok` or `over`."""
    return table(
        "limits",
        ["", "measured", "allowed", ""],
        [
            [
                check.what,
                f"{number(check.measured)}{check.unit}",
                f"{'>=' if check.least else '<='} {number(check.bound)}{check.unit}",
                "ok" if check.kept else "over",
            ]
            for check in checks
        ],
    )


def number(value: float) -> str:
    """Format a number with three significant digits, or with all digits before the point."""
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 or size == 0 else 3
    return f"{value:,.{places}f}"


def _cell(value: object) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else "-"
