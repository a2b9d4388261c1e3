"""Host names that nobody answers: they hold up neither other servers, nor the end of the daemon."""

import signal
from pathlib import Path

from pgwatch_sessions.demo.postgres import Postgres
from tests.support.daemons import daemon
from tests.support.waiting import until

#: Loaded by Python at its start: a resolver whose server for names ending in .test does not answer.
SLOW_RESOLVER = """
import socket, time
resolve = socket.getaddrinfo

def getaddrinfo(host, *arguments, **options):
    if str(host).endswith(".test"):
        time.sleep(60)
    return resolve(host, *arguments, **options)

socket.getaddrinfo = getaddrinfo
"""
#: More than asyncio's own threads for lookups: one for each core, and four.
UNANSWERED = 40


def test_names_that_nobody_answers_hold_up_nothing(postgres: Postgres, tmp_path: Path) -> None:
    """A server whose name is found is polled on time, and the daemon ends without waiting for the lookups."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_RESOLVER)
    servers = [f"- {{name: u{each}, dsn: 'postgresql://u@u{each}.test/x'}}" for each in range(UNANSWERED)]
    found = f"postgresql://postgres@localhost:{postgres.port}/postgres"
    file = tmp_path / "pgwatch-sessions.yaml"
    file.write_text("\n".join(["servers:", *servers, f"- {{name: found, dsn: '{found}'}}", ""]))
    with daemon("--config", str(file), timeout="500ms", variables={"PYTHONPATH": str(tmp_path)}) as watching:
        watching.scrape_when(lambda scrape: scrape.value("up", server="found") == 1)
        failing = watching.scrape_when(
            lambda scrape: (scrape.value("poll_failures_total", server="u0", reason="timeout") or 0) >= 3
        )
        assert failing.polls(server="found") >= 3
        assert failing.value("poll_failures_total", server="found", reason="timeout") == 0
        (down, *_) = until(lambda: [each for each in watching.events("server_down") if each["server"] == "u0"])
        assert "u0.test:5432 does not answer" in str(down)
        threads = len(list(Path(f"/proc/{watching.process.pid}/task").iterdir()))
        assert threads <= UNANSWERED + 20, "each name has one thread, however often it is polled"
        assert watching.end_by(signal.SIGTERM) == 0  # which waits for 10 s at the most
