"""Target groups in Prometheus' formats: what is read, and what is refused without showing its values."""

import json

import pytest

from pgwatch_sessions.discovery.target_groups import MAX_BYTES, FoundTarget, SourceError, read_groups


def test_each_target_has_the_labels_of_its_group() -> None:
    """JSON and YAML say the same."""
    groups = [{"targets": ["a:5432", "[::1]:5433"], "labels": {"cluster": "x"}}, {"targets": ["b"]}]
    found = (FoundTarget("a:5432", {"cluster": "x"}), FoundTarget("[::1]:5433", {"cluster": "x"}), FoundTarget("b", {}))
    assert read_groups(json.dumps(groups).encode(), "x") == found
    assert read_groups(
        b"- {targets: ['a:5432', '[::1]:5433'], labels: {cluster: x}}\n- {targets: [b]}", "x", is_yaml=True
    )
    assert read_groups(b"", "x", is_yaml=True) == read_groups(b"[]", "x") == ()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b" " * (MAX_BYTES + 1), "longer than 16 MiB"),
        (b"{}", "must be a list of target groups, such as `- targets: [db:5432]`"),
        (b'["a:5432"]', "group 1 has no list of `targets`"),
        (b'[{"targets": []}, {"targets": "a:5432"}]', "group 2 has no list of `targets`"),
        (
            b'[{"targets": ["u:hunter2@a:5432"]}]',
            "group 1 has a target that is not host:port; a login belongs into `dsn`",
        ),
        (
            b'[{"targets": [], "labels": {"shard": 1}}]',
            "group 1: `labels` must be a mapping of names to text; put numbers in quotes",
        ),
        (b'[{"targets": [], "labels": {"a-b": "x"}}]', "group 1 has a label whose name is not letters, digits and _"),
    ],
)
def test_what_is_no_list_of_groups_is_refused(content: bytes, error: str) -> None:
    """The error names the group, and shows no value."""
    with pytest.raises(SourceError) as raised:
        read_groups(content, "x.json")
    assert str(raised.value).removeprefix("x.json: ") == error


def test_yaml_is_read_with_bounds_and_its_line() -> None:
    """As the configuration file is: aliases, duplicate keys, text that is no YAML."""
    for content, error in (
        (b"- targets: [a\n", "x.yaml line 2, column 1: invalid YAML (expected ',' or ']')"),
        (b"- {targets: [], targets: []}", "x.yaml line 1: [0].targets: duplicate key, also on line 1; remove one"),
        (b"\xff", "x.yaml: not UTF-8 text"),
    ):
        with pytest.raises(SourceError) as raised:
            read_groups(content, "x.yaml", is_yaml=True)
        assert str(raised.value).startswith(error.split(" (")[0])
