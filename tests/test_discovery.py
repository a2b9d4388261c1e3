"""A daemon whose servers are found: they come, go, and are checked like listed ones."""

import contextlib
import json
import signal
from pathlib import Path

import yaml

from tests.support.daemons import daemon
from tests.support.ports import port_that_sends
from tests.support.programs import finished
from tests.support.servers import Database
from tests.support.waiting import until
from tests.test_sharding import watched


def write_targets(file: Path, database: Database, *names: str) -> None:
    """Write one target group for each name. Readers see the file whole."""
    address = f"127.0.0.1:{database.server.port}"
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps([{"targets": [address], "labels": {"name": name}} for name in names]), encoding="utf-8")
    draft.replace(file)


def write_config(folder: Path, database: Database) -> tuple[Path, Path]:
    """Write a configuration that finds servers. Return it, and the file that it finds them in."""
    targets, config = folder / "targets.json", folder / "config.yaml"
    source = {
        "file_sd": str(targets),
        "refresh_interval": "1s",
        "name": "{name}",
        "dsn": f"postgresql://postgres@{{target}}/{database.name}",
    }
    config.write_text(yaml.safe_dump({"servers_from": [source]}), encoding="utf-8")
    return config, targets


def test_found_servers_come_and_go(database: Database, tmp_path: Path) -> None:
    """Without a restart. A file that cannot be read changes nothing, and is said once."""
    config, targets = write_config(tmp_path, database)
    write_targets(targets, database, "orders", "billing")
    with contextlib.ExitStack() as stack:
        watching = stack.enter_context(daemon("--config", str(config)))
        assert watched(watching) == {"orders", "billing"}
        write_targets(targets, database, "orders", "stock")
        until(lambda: watched(watching) == {"orders", "stock"})
        changes = [(event["added"], event["removed"]) for event in watching.events("servers_found")]
        assert changes == [(["billing", "orders"], []), (["stock"], []), ([], ["billing"])]
        targets.write_text("{", encoding="utf-8")
        (failed,) = until(lambda: watching.events("discovery_failed"))
        scrape = watching.scrape_when(lambda scrape: (scrape.value("discovery_failures_total") or 0) >= 2)
        assert scrape.value("discovered_servers", source=str(targets)) == 2
        assert (failed["source"], failed["error"]) == (str(targets), f"{targets}: not valid JSON")
        assert watched(watching) == {"orders", "stock"}
        write_targets(targets, database, "orders", "stock")
        until(lambda: watching.events("discovery_resumed"))
        assert len(watching.events("discovery_failed")) == 1


def test_a_daemon_may_begin_without_a_server(database: Database, tmp_path: Path) -> None:
    """It says so, is healthy, and watches what is found later."""
    config, targets = write_config(tmp_path, database)
    with daemon("--config", str(config)) as watching:
        assert "polls no server yet" in watching.events("started")[0]["message"]
        assert [event["error"] for event in watching.events("discovery_failed")] == [f"{targets} does not exist"]
        assert watching.get("/healthz").status_code == 200
        write_targets(targets, database, "orders")
        until(lambda: watched(watching) == {"orders"})


def test_check_looks_at_found_servers(database: Database, tmp_path: Path) -> None:
    """A source that cannot be read is an error."""
    config, targets = write_config(tmp_path, database)
    failed = finished("check", "--config", str(config), "--format=json")
    assert (failed.returncode, failed.stderr) == (2, f"pgwatch-sessions: error: {targets} does not exist\n")
    write_targets(targets, database, "orders", "billing")
    checked = finished("check", "--config", str(config), "--format=json")
    assert [each["server"] for each in json.loads(checked.stdout)["servers"]] == ["orders", "billing"]


def test_a_source_that_does_not_answer_delays_neither_start_nor_end(database: Database, tmp_path: Path) -> None:
    """The listed servers are watched meanwhile."""
    config = tmp_path / "config.yaml"
    with port_that_sends(b"") as port:
        source = {"http_sd": f"http://127.0.0.1:{port}/", "dsn": "postgresql://{target}/postgres"}
        servers = [{"name": "orders", "dsn": database.dsn()}]
        config.write_text(yaml.safe_dump({"servers": servers, "servers_from": [source]}), encoding="utf-8")
        with daemon("--config", str(config)) as watching:
            watching.scrape_when_up()
            assert watched(watching) == {"orders"}
            assert watching.end_by(signal.SIGTERM) == 0
