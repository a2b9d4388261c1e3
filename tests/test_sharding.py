"""Several daemons with one list of servers: each watches its share, and a server that moves keeps its findings."""

import contextlib
from pathlib import Path

from pgwatch_sessions.settings.sharding import Shard
from tests.support.daemons import Daemon, daemon
from tests.support.servers import Database
from tests.support.situations import idle_in_transaction
from tests.support.waiting import until
from tests.test_reload import leaks, reload, write_config

NAMES = [f"orders-{number}" for number in range(6)]


def watched(watching: Daemon) -> set[str]:
    """Return the servers that a daemon polls."""
    families = watching.scrape().families
    return {sample.labels["server"] for family in families for sample in family.samples if "server" in sample.labels}


def test_two_daemons_share_the_servers(database: Database, tmp_path: Path) -> None:
    """Each server is watched by one of them. A daemon without a shard watches all."""
    config = write_config(tmp_path / "config.yaml", *((name, database.dsn()) for name in NAMES))
    with (
        daemon("--config", str(config), "--shard=1/2") as first,
        daemon("--config", str(config), "--shard=2/2") as second,
        daemon("--config", str(config)) as unsharded,
    ):
        shares = watched(first), watched(second)
        assert shares[0] | shares[1] == set(NAMES) == watched(unsharded)
        assert not shares[0] & shares[1]
        assert all(shares)


def test_a_daemon_whose_share_is_empty_is_healthy(database: Database, tmp_path: Path) -> None:
    """It has nothing to poll, so nothing is late."""
    config = write_config(tmp_path / "config.yaml", ("orders", database.dsn()))
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(daemon("--config", str(config), f"--shard={number}/2", timeout="200ms"))
            for number in (1, 2)
        ]
        (empty,) = [each for each in both if not watched(each)]
        (other,) = [each for each in both if watched(each)]
        polls = other.scrape().polls()
        other.scrape_when(lambda scrape: scrape.polls() > polls + 10)
        assert (empty.get("/healthz").status_code, empty.get("/readyz").status_code) == (200, 200)


def test_a_server_that_moves_to_another_daemon_keeps_its_finding(database: Database, tmp_path: Path) -> None:
    """A second daemon is added, and both have the same state_dir: nothing is opened twice."""
    moved = next(name for name in NAMES if Shard(2, 2, "").has(name))
    servers = [(name, database.dsn()) for name in NAMES]
    common = {"hold_limit": "1s", "state_dir": str(tmp_path)}
    config = write_config(tmp_path / "first.yaml", *servers, **common)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(idle_in_transaction(database.dsn(application_name="shop")))
        first = stack.enter_context(daemon("--config", str(config)))
        (before,) = until(lambda: leaks(first, moved))

        write_config(config, *servers, **common, shard="1/2")
        assert moved not in str(reload(first)["settings"])
        assert moved not in watched(first)
        config = write_config(tmp_path / "second.yaml", *servers, **common, shard="2/2")
        second = stack.enter_context(daemon("--config", str(config)))
        (after,) = until(lambda: leaks(second, moved))
        assert after["opened_at"] == before["opened_at"]
        assert sum(second.scrape().all("leaks_opened_total", server=moved)) == 1
        assert not second.events("leak_opened")
