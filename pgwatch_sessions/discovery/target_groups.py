"""Target groups, as Prometheus' file_sd and http_sd have them: `[{"targets": ["db:5432"], "labels": {"env": "x"}}]`.

Source: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pgwatch_sessions.settings.errors import PlacedError
from pgwatch_sessions.settings.yaml_files import read_document

#: A longer answer or file is refused.
MAX_BYTES = 16 * 2**20

_ADDRESS = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", re.ASCII)
_LABEL = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class SourceError(Exception):
    """A source cannot be used now. The text says why, without values: they may be secrets."""


class FoundTarget(NamedTuple):
    """One target: its address as host:port or host, and the labels of its group."""

    address: str
    labels: Mapping[str, str]


def read_groups(content: bytes, place: str, *, is_yaml: bool = False) -> tuple[FoundTarget, ...]:
    """Return the targets of all groups, in their order. `place` is where they come from.

    Raises SourceError if the content has another form.
    """
    if len(content) > MAX_BYTES:
        raise SourceError(f"{place}: longer than {MAX_BYTES // 2**20} MiB")
    groups = _yaml(content, place) if is_yaml else _json(content, place)
    if groups is None and is_yaml:  # an empty file
        return ()
    if not isinstance(groups, list):
        raise SourceError(f"{place}: must be a list of target groups, such as `- targets: [db:5432]`")
    return tuple(
        target for index, group in enumerate(groups) for target in _targets(group, f"{place}: group {index + 1}")
    )


def _json(content: bytes, place: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise SourceError(f"{place}: not valid JSON") from None


def _yaml(content: bytes, place: str) -> Any:
    try:
        document = read_document(content.decode(), place, max_size=2 * MAX_BYTES)
    except UnicodeDecodeError:
        raise SourceError(f"{place}: not UTF-8 text") from None
    except PlacedError as error:
        raise SourceError(str(error)) from None
    if document.errors:
        raise SourceError(str(document.errors[0]))
    return document.values


def _targets(group: Any, place: str) -> Iterator[FoundTarget]:
    if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
        raise SourceError(f"{place} has no list of `targets`")
    labels = group.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise SourceError(f"{place}: `labels` must be a mapping of names to text; put numbers in quotes")
    if not all(isinstance(name, str) and _LABEL.fullmatch(name) for name in labels):
        raise SourceError(f"{place} has a label whose name is not letters, digits and _")
    for address in group["targets"]:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            # It is not shown: it may be a URI with a password.
            raise SourceError(f"{place} has a target that is not host:port; a login belongs into `dsn`")
        yield FoundTarget(address, labels)
