"""HTML that cannot be forgotten to be escaped: whatever is no Html already becomes text."""

from collections.abc import Iterable
from html import escape

#: Tags that have no end.
_VOID = frozenset({"meta", "br"})


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float | None) -> Html:
    """Make an element. Attributes that are None are left out; `class_` stands for `class`, `_` for `-`."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """Put parts one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], *, caption: str) -> Html:
    """Make a table whose rows each begin with their own heading; it scrolls by itself where it is too wide.

    A column whose name ends with `#` is one of numbers.
    """
    names = list(columns)
    numeric = ["number" if name.endswith("#") else None for name in names]
    head = (
        element("th", name.rstrip("#"), scope="col", class_=kind) for name, kind in zip(names, numeric, strict=True)
    )
    body = (
        element(
            "tr",
            *(
                element("td" if place else "th", cell, class_=kind, scope=None if place else "row")
                for place, (cell, kind) in enumerate(zip(row, numeric, strict=True))
            ),
        )
        for row in rows
    )
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return element("div", whole, class_="wide", tabindex=0)


def with_code(text: str) -> Html:
    """Set what stands between backquotes as code."""
    parts = text.split("`")
    return joined(element("code", part) if place % 2 else part for place, part in enumerate(parts))
