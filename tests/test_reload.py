"""The daemon reads its configuration again while it runs: what has changed is taken in, and all else stays."""

import contextlib
import gzip
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import yaml

from pgwatch_sessions.demo.child_process import child_process
from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME
from tests.support.daemons import Daemon, daemon, logged, own_sessions
from tests.support.programs import PROGRAM, environment
from tests.support.servers import Database, OwnPostgresFactory
from tests.support.situations import idle_in_transaction, locked_catalog
from tests.support.waiting import until


def write_config(path: Path, *servers: tuple[str, str], **settings: object) -> Path:
    """Write a configuration file with these servers, as pairs of name and DSN. Readers see it whole."""
    content = {"servers": [{"name": name, "dsn": dsn} for name, dsn in servers], **settings}
    draft = path.with_suffix(".draft")
    draft.write_text(yaml.safe_dump(content), encoding="utf-8")
    draft.replace(path)
    return path


def reload(watching: Daemon, *, outcome: str = "config_reloaded") -> dict[str, Any]:
    """Send SIGHUP and return the line that the daemon logs about it."""
    before = len(watching.events(outcome))
    os.kill(watching.process.pid, signal.SIGHUP)
    until(lambda: len(watching.events(outcome)) > before)
    return watching.events(outcome)[-1]


def own_pids(dsn: str, database: str) -> set[int]:
    """Return the backends of the daemon that are connected to this database."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND datname = %s"
    with psycopg.connect(dsn, autocommit=True) as connection:
        return {pid for (pid,) in connection.execute(query, [APPLICATION_NAME, database])}


def leaks(watching: Daemon, server: str) -> list[dict[str, Any]]:
    """Return the open findings of a server."""
    found = watching.get("/api/v1/leaks").raise_for_status().json()["leaks"]
    return [each for each in found if each["server"] == server]


def leave_a_leak(stack: contextlib.ExitStack, database: Database) -> None:
    """Open three transactions and forget them."""
    for _ in range(3):
        stack.enter_context(idle_in_transaction(database.dsn(application_name="shop")))


def test_sighup_takes_in_servers_and_thresholds_and_leaves_the_rest(
    postgres: Postgres, database: Database, tmp_path: Path
) -> None:
    """A server that stays keeps its connection, its open finding with its start, and its counters."""
    orders, billing = ("orders", database.dsn()), ("billing", postgres.dsn())
    config = write_config(tmp_path / "config.yaml", orders, hold_limit="1s")
    with contextlib.ExitStack() as stack:
        leave_a_leak(stack, database)
        watching = stack.enter_context(daemon("--config", str(config)))
        (finding,) = until(lambda: leaks(watching, "orders"))
        before, pids = watching.scrape(), own_pids(postgres.dsn(), database.name)

        write_config(config, orders, billing, hold_limit="10m", timeout="3s")
        event = reload(watching)
        assert (event["added"], event["settings"]) == (["billing"], ["hold_limit"]), "the environment has the timeout"
        polls = watching.scrape_when(lambda scrape: scrape.value("up", server="billing") == 1).polls(server="orders")
        after = watching.scrape_when(lambda scrape: scrape.polls(server="orders") > polls + 2)

        (kept,) = leaks(watching, "orders")
        assert kept["opened_at"] == finding["opened_at"]
        assert own_pids(postgres.dsn(), database.name) == pids
        for scrape in (before, after):
            assert scrape.value("leaks_opened_total", server="orders", application="shop") == 1
        assert after.polls(server="orders") > before.polls(server="orders")
        assert leaks(watching, "billing") == [], "the new server is judged by the new hold_limit"
        assert watching.get("/readyz").status_code == watching.get("/healthz").status_code == 200


def test_a_reloaded_limit_of_a_place_ends_its_finding(database: Database, tmp_path: Path) -> None:
    """The finding ends at the reload. Its sessions may stay, and the daemon need not be restarted."""
    server = ("orders", database.dsn())
    config = write_config(tmp_path / "config.yaml", server, hold_limit="1s")
    with contextlib.ExitStack() as stack:
        leave_a_leak(stack, database)
        watching = stack.enter_context(daemon("--config", str(config)))
        until(lambda: leaks(watching, "orders"))
        write_config(config, server, hold_limit="1s", hold_limits=[{"application": "sh*", "limit": "30m"}])
        assert reload(watching)["settings"] == ["hold_limits"]
        until(lambda: {leak["state"] for leak in leaks(watching, "orders")} <= {"recovering"})
        (line,) = watching.get("/api/v1/diagnosis").json()["servers"][0]["not_judged"]
        assert (line["application"], line["sessions"], line["reason"]) == ("shop", 3, "configured_limit")


def test_a_broken_file_is_refused_and_the_daemon_goes_on(database: Database, tmp_path: Path) -> None:
    """One line has every error with its place, and the metric is 0 until a reload succeeds. Nothing else changes."""
    orders = ("orders", database.dsn())
    config = write_config(tmp_path / "config.yaml", orders, hold_limit="2m")
    with daemon("--config", str(config), interval="1h") as watching:  # no poll refreshes what is rendered
        started = watching.scrape_when_up().value("config_reload_timestamp_seconds") or 0
        assert abs(time.time() - started) < 60
        config.write_text(f"hold_limt: 1m\ntimeout: 1h\nservers: [{{name: orders, dsn: '{database.dsn()}'}}]\n")
        event = reload(watching, outcome="config_reload_failed")
        assert event["level"] == "error"
        assert event["errors"] == [f"{config} line 1: hold_limt: unknown setting; did you mean hold_limit?"]
        refused = watching.scrape_when(lambda scrape: scrape.value("config_reload_success") == 0)
        assert refused.value("config_reload_timestamp_seconds") == started
        assert refused.value("up", server="orders") == 1

        write_config(config, orders, hold_limit="3m")
        assert reload(watching)["settings"] == ["hold_limit"]
        repaired = watching.scrape_when(lambda scrape: scrape.value("config_reload_success") == 1)
        assert (repaired.value("config_reload_timestamp_seconds") or 0) > started
        assert len(watching.events("config_reload_failed")) == 1


def test_a_removed_server_is_forgotten(postgres: Postgres, own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """Its series are gone and its connection is closed, also if a poll of it hangs. Its recording is complete."""
    server = own_postgres()
    orders, billing, polls = ("orders", server.dsn()), ("billing", postgres.dsn()), tmp_path / "polls"
    config = write_config(tmp_path / "config.yaml", orders, billing, record_dir=str(polls))
    with daemon("--config", str(config), timeout="30s") as watching:
        watching.scrape_when(lambda scrape: scrape.all("up") == [1, 1])
        server.freeze()
        try:
            watching.scrape_when(lambda scrape: scrape.silence(server="orders") > 0.5)
            write_config(config, billing, record_dir=str(polls))
            event = reload(watching)
        finally:
            server.thaw()
        assert (event["removed"], "settings" in event) == (["orders"], False)
        after = watching.scrape()
        assert [after.value("up"), len(after.all("poll_duration_seconds_count"))] == [1, 1]
        until(lambda: own_sessions(server.dsn()) == 0)
        (recording,) = polls.glob("*-orders.jsonl.gz")
        assert gzip.decompress(recording.read_bytes()).endswith(b"}\n"), "without its end mark this fails"

        write_config(config, billing, record_dir=str(tmp_path / "elsewhere"))
        assert reload(watching)["settings"] == ["record_dir"]
        (recording,) = polls.glob("*-billing.jsonl.gz")
        assert gzip.decompress(recording.read_bytes()).endswith(b"}\n")
        until(lambda: list((tmp_path / "elsewhere").glob("*-billing.jsonl.gz")))


def test_a_server_with_another_dsn_is_reconnected_and_keeps_its_findings(
    postgres: Postgres, database: Database, tmp_path: Path
) -> None:
    """The old connection is closed. The finding and the counters belong to the name."""
    config = write_config(tmp_path / "config.yaml", ("orders", database.dsn()), hold_limit="1s")
    with contextlib.ExitStack() as stack:
        leave_a_leak(stack, database)
        watching = stack.enter_context(daemon("--config", str(config)))
        (finding,) = until(lambda: leaks(watching, "orders"))
        write_config(config, ("orders", postgres.dsn()), hold_limit="1s")
        assert reload(watching)["reconnected"] == ["orders"]
        until(lambda: own_pids(postgres.dsn(), database.name) == set())
        polls = watching.scrape_when_up().polls()
        after = watching.scrape_when(lambda scrape: scrape.polls() > polls + 2)
        assert len(own_pids(postgres.dsn(), "postgres")) == 1
        (kept,) = leaks(watching, "orders")
        assert kept["opened_at"] == finding["opened_at"]
        assert after.value("leaks_opened_total", application="shop") == 1


def test_a_changed_interval_timeout_and_statements_need_no_new_connection(database: Database, tmp_path: Path) -> None:
    """The next poll comes at once, the server has the new deadline, and no text of a statement is left."""
    server = ("orders", database.dsn())
    config = write_config(tmp_path / "config.yaml", server, interval="1h", timeout="30s", hold_limit="1s")
    variables = {"LISTEN": "127.0.0.1:0", "CONFIG": str(config)}
    with (
        idle_in_transaction(database.dsn(application_name="shop"), "SELECT 'secret' AS visible_column"),
        running_daemon(tmp_path / "log", **variables) as watching,
    ):
        watching.scrape_when_up()
        pids = own_pids(database.dsn(), database.name)
        assert "visible_column" in watching.get("/api/v1/sessions").text
        write_config(
            config, server, interval="200ms", timeout="1s", hold_limit="1s", statements=False, log_format="json"
        )
        assert reload(watching)["settings"] == ["interval", "timeout", "statements", "log_format"]
        watching.scrape_when(lambda scrape: scrape.polls() > 3)
        assert "visible_column" not in watching.get("/api/v1/sessions").text
        with locked_catalog(database.dsn(), "pg_database"):
            watching.scrape_when(lambda scrape: scrape.value("up") == 0)
        watching.scrape_when_up()
        assert own_pids(database.dsn(), database.name) == pids, "the server has ended the statement, not we the session"


def test_settings_that_need_a_restart_are_named(database: Database, tmp_path: Path) -> None:
    """They keep their value, and each reload says so until the restart."""
    server = ("orders", database.dsn())
    config = write_config(tmp_path / "config.yaml", server)
    with daemon("--config", str(config)) as watching:
        write_config(config, server, metrics_listen="127.0.0.1:1", horizon="2h")
        event = reload(watching)
        assert (event["level"], event["restart_to_change"]) == ("warning", ["metrics_listen"])
        assert event["settings"] == ["horizon"]
        assert "settings" not in (again := reload(watching))
        assert again["restart_to_change"] == ["metrics_listen"]


def test_without_a_file_the_secret_files_are_read_again(postgres: Postgres, database: Database, tmp_path: Path) -> None:
    """The environment of a process cannot change, but the files that it names can."""
    secret = tmp_path / "dsn"
    secret.write_text(database.dsn())
    variables = {"LISTEN": "127.0.0.1:0", "DSN_FILE": str(secret), "NAME": "orders", "INTERVAL": "100ms"}
    with running_daemon(tmp_path / "log", **variables) as watching:
        watching.scrape_when_up()
        assert "nothing has changed" in reload(watching)["message"]
        secret.write_text(postgres.dsn())
        assert reload(watching)["reconnected"] == ["orders"]
        assert database.dsn() not in watching.log.read_text()


def test_watched_files_are_read_when_a_link_leads_elsewhere(
    postgres: Postgres, database: Database, tmp_path: Path
) -> None:
    """Kubernetes changes a mounted ConfigMap by renaming a link to a folder. A broken one is refused once."""
    mounted = tmp_path / "config"
    mounted.mkdir()
    (mounted / "config.yaml").symlink_to(Path("..data", "config.yaml"))

    def mount(name: str, *servers: tuple[str, str], **settings: object) -> None:
        folder = mounted / name
        folder.mkdir()
        write_config(folder / "config.yaml", *servers, **settings)
        (mounted / "..data_tmp").symlink_to(name)
        (mounted / "..data_tmp").rename(mounted / "..data")

    orders, billing = ("orders", database.dsn()), ("billing", postgres.dsn())
    mount("..first", orders, reload="watch")
    with daemon("--config", str(mounted / "config.yaml")) as watching:
        mount("..second", orders, billing, reload="watch")
        watching.scrape_when(lambda scrape: scrape.all("up") == [1, 1])
        mount("..third", orders, reload="wotch")
        watching.scrape_when(lambda scrape: scrape.value("config_reload_success") == 0)
        mount("..fourth", orders, reload="signal")
        watching.scrape_when(lambda scrape: scrape.value("config_reload_success") == 1)
        assert watching.scrape().all("up") == [1]
        assert [len(watching.events(f"config_{name}")) for name in ("reloaded", "reload_failed")] == [2, 1]


def test_sighup_never_ends_the_daemon(database: Database, tmp_path: Path) -> None:
    """Not from its first moment, not while it reloads, and not while it ends, however often it comes."""
    variables = environment(LISTEN="127.0.0.1:0", DSN=database.dsn(), INTERVAL="100ms")
    log = tmp_path / "log"
    with child_process((*PROGRAM, "run"), env=variables, log=log) as process:
        until(lambda: hangup_is_safe(process.pid), within=20)
        enough = threading.Event()

        def storm() -> None:
            with contextlib.suppress(ProcessLookupError):
                while not enough.wait(0.001):
                    os.kill(process.pid, signal.SIGHUP)

        storming = threading.Thread(target=storm)
        storming.start()
        try:
            until(lambda: [each for each in logged(log) if each["event"] == "config_reloaded"], within=30)
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(timeout=20) == 0, log.read_text()
        finally:
            enough.set()
            storming.join()
    assert [each["event"] for each in logged(log)][-1] == "stopped"
    until(lambda: own_sessions(database.dsn()) == 0)


def test_a_sighup_while_starting_is_not_lost(database: Database, tmp_path: Path) -> None:
    """It is answered as soon as the daemon runs: the file may have changed after it was read."""
    variables = environment(LISTEN="127.0.0.1:0", DSN=database.dsn(), INTERVAL="100ms")
    log = tmp_path / "log"
    with child_process((*PROGRAM, "run"), env=variables, log=log) as process:
        until(lambda: hangup_is_safe(process.pid), within=20)
        os.kill(process.pid, signal.SIGHUP)
        until(lambda: len(logged(log)) >= 2, within=20)
        until(lambda: [each for each in logged(log) if each["event"] == "config_reloaded"])
    assert process.poll() == 0


def hangup_is_safe(pid: int) -> bool:
    """Return whether the process blocks, ignores or handles SIGHUP."""
    bit = 1 << (signal.SIGHUP - 1)
    masks = re.findall(r"^Sig(?:Blk|Ign|Cgt):\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return any(int(mask, 16) & bit for mask in masks)


@contextlib.contextmanager
def running_daemon(log: Path, **variables: str) -> Iterator[Daemon]:
    """Run the daemon with exactly these settings from the environment, so that a file can have all others."""
    log.touch()
    with child_process((*PROGRAM, "run"), env=environment(**variables), log=log) as process:
        (started,) = until(lambda: [each for each in logged(log) if each["event"] == "started"], within=20)
        yield Daemon(process=process, log=log, address=started["address"])
    assert process.poll() == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()
