"""Templates of names and DSNs: text with `{label}` where the value of a target's label goes."""

import re
from collections.abc import Mapping
from urllib.parse import quote

#: Stands for the target's own address, host:port.
TARGET = "target"

_FIELD = re.compile(r"\{(\w*)\}", re.ASCII)


def check_template(template: str) -> str:
    """Return the template; ValueError if its braces do not enclose names of labels."""
    if "{}" in template or re.search(r"[{}]", _FIELD.sub("", template)):
        raise ValueError("has braces that enclose no label; write {target}, or the name of a label: {cluster}")
    return template


def filled(template: str, labels: Mapping[str, str], target: str, *, in_uri: bool = False) -> str:
    """Return the text with the values of the labels; in a URI they are percent-encoded, but the target is not.

    Raises ValueError for a label that the target does not have.
    """

    def value(field: re.Match[str]) -> str:
        if field[1] == TARGET:
            return target
        try:
            text = labels[field[1]]
        except KeyError:
            raise ValueError(f"the target has no label {field[1]}") from None
        return quote(text, safe="") if in_uri else text

    return _FIELD.sub(value, template)
