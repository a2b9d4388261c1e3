"""The daemon as a process on servers that cannot be seen for a while."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.postgres.connection import APPLICATION_NAME
from tests.conftest import OwnPostgresFactory
from tests.daemons import Daemon, Scrape, daemon, own_sessions, through
from tests.ports import port_that_sends
from tests.proxy import proxy_to
from tests.servers import client_backends
from tests.situations import idle, locked_catalog, role
from tests.waiting import until

SESSION_SERIES = (
    "connections",
    "used_slots",
    "capacity_slots",
    "hidden_sessions",
    "folded_clients",
    "established_total",
)


def assert_withdrawn(watching: Daemon, scrape: Scrape, reason: str) -> None:
    """Show that nothing is claimed of a server that is not seen, while the daemon itself is well."""
    assert scrape.value("up") == 0
    assert (scrape.value("look_failures_total", reason=reason) or 0) > 0
    assert [name for name in SESSION_SERIES if scrape.all(name)] == []
    assert watching.get("/healthz").status_code == 200
    assert watching.get("/readyz").status_code == 200


def down(reason: str) -> Callable[[Scrape], bool]:
    """Return the condition that looks fail for a reason."""
    return lambda scrape: scrape.value("up") == 0 and bool(scrape.value("look_failures_total", reason=reason))


@contextlib.contextmanager
def outage(watching: Daemon, dsn: str, reason: str) -> Iterator[None]:
    """Inside, a server that was seen is made to fail and to recover: show that both are told, and how soon."""
    before = watching.scrape_when_up()
    assert before.all("used_slots") != []
    told = len(watching.events("server_up"))
    yield
    failures = sum(watching.scrape().all("look_failures_total"))
    after = watching.scrape_when_up()
    # One that was under way may have failed; the next one succeeds.
    assert sum(after.all("look_failures_total")) <= failures + 1
    assert after.all("used_slots") != []
    assert (after.value("last_look_timestamp_seconds") or 0) > (before.value("last_look_timestamp_seconds") or 0)
    until(lambda: len(watching.events("server_up")) == told + 1)
    assert watching.events("server_down")[-1]["reason"] == reason
    until(lambda: own_sessions(dsn) == 1)


def test_a_daemon_that_comes_too_late_says_so_and_gets_in_with_the_next_free_slot(
    own_postgres: OwnPostgresFactory,
) -> None:
    """Being refused for lack of slots is itself the proof of exhaustion."""
    server = own_postgres(settings={"max_connections": "10"})
    with (
        role(server.dsn(), "app"),
        role(server.dsn(), "watcher", member_of=["pg_monitor"]),
        idle(server.dsn(user="app"), 6),
    ):
        with idle(server.dsn(user="app")), contextlib.ExitStack() as stack:
            watching = stack.enter_context(daemon(dsn=server.dsn(user="watcher"), timeout="1s"))
            refused = watching.scrape_when(down("exhausted"))
            assert_withdrawn(watching, refused, "exhausted")
            assert refused.value("exhausted") == 1
            assert [event["reason"] for event in watching.events("server_down")] == ["exhausted"]
            keep = stack.pop_all()
        with keep:
            seen = watching.scrape_when_up()
            assert seen.value("used_slots", scope="server") == 7
            assert seen.value("exhausted") == 1  # with ours all are taken again
            assert own_sessions(server.dsn()) == 1


def test_a_server_may_start_after_the_daemon(own_postgres: OwnPostgresFactory) -> None:
    """A dead database is a metric: the daemon is ready, alive, and sees the server as soon as it is there."""
    server = own_postgres()
    server.stop()
    with daemon(dsn=server.dsn(), timeout="1s") as watching:
        refused = watching.scrape_when(down("network"))
        assert_withdrawn(watching, refused, "network")
        assert refused.value("last_look_timestamp_seconds") is None
        assert refused.value("exhausted") is None
        server.start()
        watching.scrape_when_up()
        assert own_sessions(server.dsn()) == 1


def test_a_server_may_stop_and_come_back(own_postgres: OwnPostgresFactory) -> None:
    """Its end and its return are each told once, however many looks there are between."""
    server = own_postgres()
    with daemon(dsn=server.dsn(), timeout="1s") as watching:
        with outage(watching, server.dsn(), "network"):
            server.stop()
            gone = watching.scrape_when(
                lambda scrape: (scrape.value("look_failures_total", reason="network") or 0) >= 3
            )
            assert_withdrawn(watching, gone, "network")
            server.start()
        assert len(watching.events("server_down")) == 1


def test_a_frozen_server_may_thaw(own_postgres: OwnPostgresFactory) -> None:
    """Looks end at their deadline while it hangs."""
    server = own_postgres()
    with daemon(dsn=server.dsn(), timeout="500ms") as watching, outage(watching, server.dsn(), "timeout"):
        server.freeze()
        try:
            hanging = watching.scrape_when(down("timeout"))
            assert_withdrawn(watching, hanging, "timeout")
        finally:
            server.thaw()


def test_a_locked_catalog_does_not_fill_the_server_with_our_backends(own_postgres: OwnPostgresFactory) -> None:
    """Nobody can log in and our session is gone: a backend of ours waits, and is used when the lock is released."""
    server = own_postgres()
    with (
        daemon(dsn=server.dsn(), timeout="300ms") as watching,
        outage(watching, server.dsn(), "timeout"),
        locked_catalog(server.dsn(), "pg_authid") as superuser,
    ):
        superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [APPLICATION_NAME]
        )
        waiting = watching.scrape_when(
            lambda scrape: (scrape.value("look_failures_total", reason="timeout") or 0) >= 10
        )
        assert len(client_backends(server.server)) <= 3  # the superuser's, and two of ours at the most
        assert_withdrawn(watching, waiting, "timeout")


def test_a_network_may_swallow_everything_for_a_while(postgres: Postgres) -> None:
    """A connection that was black-holed is replaced, not joined by a second one."""
    with (
        proxy_to(postgres.host, postgres.port) as proxy,
        idle(postgres.dsn()),
        daemon(dsn=through(proxy), timeout="500ms") as watching,
        outage(watching, postgres.dsn(), "timeout"),
    ):
        proxy.black_hole()
        hanging = watching.scrape_when(down("timeout"))
        assert_withdrawn(watching, hanging, "timeout")
        proxy.resume()


def test_a_wrong_password_may_be_replaced(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """The file is read at each connect; neither password is ever shown."""
    server = own_postgres(hba=["host all locked 127.0.0.1/32 scram-sha-256"])
    file = tmp_path / "password"
    file.write_text("wr0ng-secret\n")
    with (
        role(server.dsn(), "locked", password="r1ght-secret", member_of=["pg_monitor"]),
        daemon("--password-file", str(file), dsn=server.dsn(user="locked"), timeout="1s") as watching,
    ):
        assert_withdrawn(watching, watching.scrape_when(down("authentication")), "authentication")
        replacement = tmp_path / "replacement"
        replacement.write_text("r1ght-secret\n")
        replacement.rename(file)
        seen = watching.scrape_when_up()
        assert own_sessions(server.dsn()) == 1
        assert [event["reason"] for event in watching.events("server_down")] == ["authentication"]
        assert "-secret" not in watching.log.read_text() + watching.get("/metrics").text
        assert seen.value("look_failures_total", reason="network") == 0


def test_one_servers_hang_delays_no_other(postgres: Postgres, tmp_path: Path) -> None:
    """While a look at one hangs for all of its deadline, the other is looked at on time."""
    file = tmp_path / "pgwatch-sessions.yaml"
    with proxy_to(postgres.host, postgres.port) as proxy:
        file.write_text(
            f"servers:\n- {{name: good, dsn: '{postgres.dsn()}'}}\n- {{name: bad, dsn: '{through(proxy)}'}}\n"
        )
        with daemon("--config", str(file), interval="200ms", timeout="30s") as watching:
            watching.scrape_when(lambda scrape: scrape.all("up") == [1, 1])
            proxy.black_hole()
            hung = watching.scrape_when(lambda scrape: scrape.silence(server="bad") > 0.5)
            times: list[float] = []

            def ten_looks_later(scrape: Scrape) -> bool:
                times.append(scrape.value("last_look_timestamp_seconds", server="good") or 0)
                return scrape.looks(server="good") >= hung.looks(server="good") + 10

            after = watching.scrape_when(ten_looks_later)
            gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
            assert max(gaps) < 1, "the other server's 30 s hold up this one"
            assert after.looks(server="bad") == hung.looks(server="bad"), "the look hangs all the while"
            proxy.resume()
            watching.scrape_when(lambda scrape: scrape.silence(server="bad") < 0.5)


def test_one_servers_nonsense_ends_no_other(postgres: Postgres, tmp_path: Path) -> None:
    """A server that is ready before anybody has logged in is down, with a reason; the other is polled as before."""
    file = tmp_path / "pgwatch-sessions.yaml"
    ready = b"Z" + (5).to_bytes(4, "big") + b"I"
    with port_that_sends(ready) as port:
        bad = f"postgresql://u:s3cret@127.0.0.1:{port}/db?sslmode=disable"
        file.write_text(f"servers:\n- {{name: good, dsn: '{postgres.dsn()}'}}\n- {{name: bad, dsn: '{bad}'}}\n")
        with daemon("--config", str(file)) as watching:
            failed = watching.scrape_when(
                lambda scrape: (scrape.value("look_failures_total", server="bad", reason="protocol") or 0) >= 3
            )
            later = watching.scrape_when(lambda scrape: scrape.looks(server="good") >= failed.looks(server="good") + 3)
            assert later.value("up", server="good") == 1
            assert sum(later.all("look_failures_total", server="good")) == 0
            assert later.value("up", server="bad") == 0
            assert watching.get("/healthz").status_code == 200
            (down,) = watching.events("server_down")
            assert (down["server"], down["reason"]) == ("bad", "protocol")
            assert "s3cret" not in watching.log.read_text()


def test_ready_only_after_the_first_look_was_attempted(postgres: Postgres) -> None:
    """A daemon whose first look hangs is alive and not ready, and claims nothing of the server."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        proxy.black_hole()
        with daemon("--name", "shop", dsn=through(proxy), timeout="30s") as watching:
            until(lambda: proxy.clients == 1)
            answer = watching.get("/readyz")
            assert (answer.status_code, answer.text) == (503, "no look yet at: shop\n")
            assert watching.get("/healthz").status_code == 200
            assert watching.scrape().value("up") is None
            proxy.resume()
            until(lambda: watching.get("/readyz").status_code == 200)
            watching.scrape_when_up()
