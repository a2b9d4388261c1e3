"""The daemon as a process on servers that cannot be polled for a while."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME
from tests.support.daemons import Daemon, Scrape, daemon, own_sessions, through
from tests.support.ports import port_that_sends
from tests.support.proxy import proxy_to
from tests.support.servers import OwnPostgresFactory, client_backends
from tests.support.situations import idle, locked_catalog, role
from tests.support.waiting import until

SESSION_SERIES = (
    "connections",
    "used_slots",
    "capacity_slots",
    "hidden_sessions",
    "folded_clients",
    "established_total",
)


def assert_withdrawn(watching: Daemon, scrape: Scrape, reason: str) -> None:
    """Assert that there are no session metrics of a server that cannot be polled, and that the probes pass."""
    assert scrape.value("up") == 0
    assert (scrape.value("poll_failures_total", reason=reason) or 0) > 0
    assert [name for name in SESSION_SERIES if scrape.all(name)] == []
    assert watching.get("/healthz").status_code == 200
    assert watching.get("/readyz").status_code == 200


def down(reason: str) -> Callable[[Scrape], bool]:
    """Return the condition that polls fail for this reason."""
    return lambda scrape: scrape.value("up") == 0 and bool(scrape.value("poll_failures_total", reason=reason))


@contextlib.contextmanager
def outage(watching: Daemon, dsn: str, *reasons: str) -> Iterator[None]:
    """Inside, a server that was seen is made to fail, for one of the reasons, and to recover: both are told."""
    before = watching.scrape_when_up()
    assert before.all("used_slots") != []
    before_up = len(watching.events("server_up"))
    yield
    failures = sum(watching.scrape().all("poll_failures_total"))
    after = watching.scrape_when_up()
    # A poll that was running may have failed; the next one succeeds.
    assert sum(after.all("poll_failures_total")) <= failures + 1
    assert after.all("used_slots") != []
    assert (after.value("reconnects_total") or 0) == (before.value("reconnects_total") or 0) + 1
    assert (after.value("last_poll_timestamp_seconds") or 0) > (before.value("last_poll_timestamp_seconds") or 0)
    until(lambda: len(watching.events("server_up")) == before_up + 1)
    assert watching.events("server_down")[-1]["reason"] in reasons
    until(lambda: own_sessions(dsn) == 1)


def test_a_daemon_that_is_refused_reports_exhaustion_and_connects_when_a_slot_is_free(
    own_postgres: OwnPostgresFactory,
) -> None:
    """A refusal for lack of slots proves that the server is full."""
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
            assert seen.value("exhausted") == 1  # our own session has taken the last slot
            assert own_sessions(server.dsn()) == 1


def test_a_server_may_start_after_the_daemon(own_postgres: OwnPostgresFactory) -> None:
    """A server that is down is a metric. The daemon is healthy and ready, and polls the server once it is up."""
    server = own_postgres()
    server.stop()
    with daemon(dsn=server.dsn(), timeout="1s") as watching:
        refused = watching.scrape_when(down("network"))
        assert_withdrawn(watching, refused, "network")
        assert refused.value("last_poll_timestamp_seconds") is None
        assert refused.value("exhausted") is None
        server.start()
        watching.scrape_when_up()
        assert own_sessions(server.dsn()) == 1


def test_a_server_may_stop_and_come_back(own_postgres: OwnPostgresFactory) -> None:
    """Its end and its return are logged once each, however many polls failed."""
    server = own_postgres()
    with daemon(dsn=server.dsn(), timeout="1s") as watching:
        # A poll while it shuts down is told that it does.
        with outage(watching, server.dsn(), "network", "starting_up"):
            server.stop()
            gone = watching.scrape_when(
                lambda scrape: (scrape.value("poll_failures_total", reason="network") or 0) >= 3
            )
            assert_withdrawn(watching, gone, "network")
            server.start()
        # A poll while the server starts is told so, which is another reason.
        reasons = [event["reason"] for event in watching.events("server_down")]
        assert reasons.count("network") == 1


def test_a_frozen_server_may_thaw(own_postgres: OwnPostgresFactory) -> None:
    """Polls end at their deadline while the server hangs."""
    server = own_postgres()
    with daemon(dsn=server.dsn(), timeout="500ms") as watching, outage(watching, server.dsn(), "timeout"):
        server.freeze()
        try:
            hanging = watching.scrape_when(down("timeout"))
            assert_withdrawn(watching, hanging, "timeout")
        finally:
            server.thaw()


@pytest.mark.promise("It has one session on a server, and at most two while one is replaced.")
def test_a_locked_catalog_does_not_fill_the_server_with_our_backends(own_postgres: OwnPostgresFactory) -> None:
    """While nobody can log in, one backend of ours waits. It is used when the lock is released."""
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
            lambda scrape: (scrape.value("poll_failures_total", reason="timeout") or 0) >= 10
        )
        assert len(client_backends(server.server)) <= 3  # the superuser's, and two of ours at the most
        assert_withdrawn(watching, waiting, "timeout")


def test_a_network_may_drop_everything_for_a_while(postgres: Postgres) -> None:
    """The connection is replaced, and there is never a second one beside it."""
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
    """The file is read at each connect, and neither password is ever shown."""
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
        assert seen.value("poll_failures_total", reason="network") == 0


@pytest.mark.promise("What one server answers affects no other.")
def test_a_server_that_hangs_delays_no_other(postgres: Postgres, tmp_path: Path) -> None:
    """While a poll of one server hangs until its deadline, the other is polled on time."""
    file = tmp_path / "pgwatch-sessions.yaml"
    with proxy_to(postgres.host, postgres.port) as proxy:
        file.write_text(
            f"servers:\n- {{name: good, dsn: '{postgres.dsn()}'}}\n- {{name: bad, dsn: '{through(proxy)}'}}\n"
        )
        with daemon("--config", str(file), interval="200ms", timeout="30s") as watching:
            watching.scrape_when(lambda scrape: scrape.all("up") == [1, 1])
            proxy.black_hole()
            hung = watching.scrape_when(lambda scrape: scrape.silence(server="bad") > 0.5)
            after = watching.scrape_when(
                lambda scrape: scrape.polls(server="good") >= hung.polls(server="good") + 10, within=20
            )
            assert after.polls(server="bad") == hung.polls(server="bad"), "the poll did not hang"
            left_out = [each.value("polls_skipped_total", server="bad") or 0 for each in (hung, after)]
            assert left_out[1] >= left_out[0] + 5
            proxy.resume()
            watching.scrape_when(lambda scrape: scrape.silence(server="bad") < 0.5)


@pytest.mark.promise("What one server answers affects no other.")
def test_nonsense_from_one_server_does_not_affect_others(postgres: Postgres, tmp_path: Path) -> None:
    """A server that breaks the protocol is down with that reason; where is logged once. The other is polled."""
    file = tmp_path / "pgwatch-sessions.yaml"
    let_in, ready = b"R" + (8).to_bytes(4, "big") + bytes(4), b"Z" + (5).to_bytes(4, "big") + b"I"
    with port_that_sends(let_in + ready) as port:
        bad = f"postgresql://u:s3cret@127.0.0.1:{port}/db?sslmode=disable"
        file.write_text(f"servers:\n- {{name: good, dsn: '{postgres.dsn()}'}}\n- {{name: bad, dsn: '{bad}'}}\n")
        with daemon("--config", str(file)) as watching:
            failed = watching.scrape_when(
                lambda scrape: (scrape.value("poll_failures_total", server="bad", reason="protocol") or 0) >= 3
            )
            later = watching.scrape_when(lambda scrape: scrape.polls(server="good") >= failed.polls(server="good") + 3)
            assert later.value("up", server="good") == 1
            assert sum(later.all("poll_failures_total", server="good")) == 0
            assert later.value("up", server="bad") == 0
            assert watching.get("/healthz").status_code == 200
            (down,) = watching.events("server_down")
            assert (down["server"], down["reason"]) == ("bad", "protocol")
            (surprise,) = watching.events("answer_not_understood")
            assert (surprise["server"], surprise["error"]) == ("bad", "AttributeError")
            assert " connected < " in surprise["stack"]
            assert "s3cret" not in watching.log.read_text()


def test_ready_only_after_the_first_poll_was_attempted(postgres: Postgres) -> None:
    """A daemon whose first poll hangs is healthy but not ready, and has no series `up` of the server."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        proxy.black_hole()
        with daemon("--name", "shop", dsn=through(proxy), timeout="30s") as watching:
            until(lambda: proxy.clients == 1)
            answer = watching.get("/readyz")
            assert (answer.status_code, answer.text) == (503, "no poll yet at: shop\n")
            assert watching.get("/healthz").status_code == 200
            assert watching.scrape().value("up") is None
            proxy.resume()
            until(lambda: watching.get("/readyz").status_code == 200)
            watching.scrape_when_up()
