"""Each server belongs to one shard, and a change of their number moves few servers."""

import socket
from collections import Counter

import pytest

from pgwatch_sessions.settings.sharding import Shard
from tests.support.given_settings import errors_of, loaded

SERVERS = [f"db-{number}.example:5432" for number in range(1_000)]


def owners(of: int) -> dict[str, int]:
    """Return the shard of each server; AssertionError if one has none, or several."""
    shards = [Shard(number, of, "") for number in range(1, of + 1)]
    found = {server: [shard.number for shard in shards if shard.has(server)] for server in SERVERS}
    assert {len(numbers) for numbers in found.values()} == {1}
    return {server: numbers[0] for server, numbers in found.items()}


@pytest.mark.parametrize("of", [1, 2, 5, 16])
def test_each_server_belongs_to_one_shard(of: int) -> None:
    """Of shards that are about equal."""
    sizes = Counter(owners(of).values())
    assert len(sizes) == of
    assert max(sizes.values()) < 2 * min(sizes.values())


def test_a_fifth_shard_takes_a_fifth_of_the_servers_and_moves_no_other() -> None:
    """So that most servers keep their daemon when the number of daemons changes."""
    before, after = owners(4), owners(5)
    moved = {server for server in SERVERS if before[server] != after[server]}
    assert {after[server] for server in moved} == {5}
    assert 150 < len(moved) < 250


def test_a_shard_is_written_as_it_was_given() -> None:
    """By default there is none."""
    assert str(loaded({"shard": "2/5"}).shard) == "2/5"
    assert loaded({}).shard is None


def test_a_pod_of_a_stateful_set_knows_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods count from 0."""
    monkeypatch.setattr(socket, "gethostname", lambda: "pgwatch-sessions-3")
    shard = loaded({"shard": "ordinal/5"}).shard
    assert shard is not None
    assert (shard.number, shard.of, str(shard)) == (4, 5, "ordinal/5")


@pytest.mark.parametrize(
    ("host", "text", "error"),
    [
        ("laptop", "2", "must be NUMBER/OF such as 2/5, or ordinal/5 for the pods of a StatefulSet"),
        ("laptop", "6/5", "must be from 1/5 to 5/5, not 6/5"),
        ("laptop", "0/5", "must be from 1/5 to 5/5, not 0/5"),
        ("laptop", "0/0", "must not be of 0"),
        ("db-5", "ordinal/5", "must be from 1/5 to 5/5, not 6/5"),
        (
            "laptop",
            "ordinal/5",
            "ordinal needs a host name that ends in a number, such as pgwatch-sessions-0, not laptop",
        ),
    ],
)
def test_what_is_no_shard_is_refused(monkeypatch: pytest.MonkeyPatch, host: str, text: str, error: str) -> None:
    """The error says what would be one."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert errors_of({"shard": text}) == [f"--shard: {error}"]
