"""Numbers as aligned plain text, and limits beside what was measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What we promise of one number."""

    what: str
    measured: float
    bound: float
    unit: str = ""
    #: Whether the bound is the least that is allowed, not the most.
    least: bool = False

    @property
    def kept(self) -> bool:
        """Whether the number is within the bound."""
        return self.measured >= self.bound if self.least else self.measured <= self.bound


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Align columns, the first to the left and the others to the right; floats are shown by `number`."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return "\n".join([title, *(line.rstrip() for line in lines), ""])


def limits(*checks: Limit) -> str:
    """Show each limit with a mark."""
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
    """Write a number with three significant digits, or all digits before the point."""
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 or size == 0 else 3
    return f"{value:,.{places}f}"


def _cell(value: object) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else "-"
