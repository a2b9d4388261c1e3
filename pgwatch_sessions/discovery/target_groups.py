"""Target groups, as Prometheus' file_sd and http_sd have them: `[{"targets": ["db:5432"], "labels": {"env": "x"}}]`.

Source: https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

#: A longer answer or file is refused.
MAX_BYTES = 16 * 2**20

_ADDRESS = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", re.ASCII)
_LABEL = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class TargetGroupsError(Exception):
    """The content has another form. The text says what is wrong, without values: they may be secrets."""


class FoundTarget(NamedTuple):
    """One target: its address as host:port or host, and the labels of its group."""

    address: str
    labels: Mapping[str, str]


def read_groups(content: bytes, *, is_yaml: bool = False) -> tuple[FoundTarget, ...]:
    """Return the targets of all groups, in their order. Raises TargetGroupsError."""
    if len(content) > MAX_BYTES:
        raise TargetGroupsError(f"longer than {MAX_BYTES // 2**20} MiB")
    try:
        groups = yaml.safe_load(content) if is_yaml else json.loads(content)
    except (ValueError, yaml.YAMLError, RecursionError):
        raise TargetGroupsError(f"not valid {'YAML' if is_yaml else 'JSON'}") from None
    if groups is None and is_yaml:  # an empty file
        return ()
    if not isinstance(groups, list):
        raise TargetGroupsError("must be a list of target groups, such as `- targets: [db:5432]`")
    return tuple(target for index, group in enumerate(groups) for target in _targets(group, f"group {index + 1}"))


def _targets(group: Any, place: str) -> Iterator[FoundTarget]:
    if not isinstance(group, dict) or not isinstance(group.get("targets"), list):
        raise TargetGroupsError(f"{place} has no list of `targets`")
    labels = group.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise TargetGroupsError(f"{place}: `labels` must be a mapping of names to text; put numbers in quotes")
    if not all(isinstance(name, str) and _LABEL.fullmatch(name) for name in labels):
        raise TargetGroupsError(f"{place} has a label whose name is not letters, digits and _")
    for address in group["targets"]:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            # It is not shown: it may be a URI with a password.
            raise TargetGroupsError(f"{place} has a target that is not host:port; a login belongs into `dsn`")
        yield FoundTarget(address, labels)
