"""What is held against the daemon: a run in which all was right, and the same run with one thing wrong."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.complaints import complaints
from tests.faults.fault import Fault, Seen
from tests.faults.samples import Sample
from tests.faults.scene import Scene
from tests.faults.witness import Witness
from tests.support.daemons import Scrape

_LEAKING = 'application="orders-api"'


@contextlib.contextmanager
def nothing(_: Scene) -> Iterator[None]:
    """Make no fault."""
    yield


DOWN = Fault(name="down", make=nothing, seen=Seen.NEVER, reasons=frozenset({"network"}))


def sample(
    at: float, *, up: int = 1, failed: int = 0, ours: int = 1, series: bool | None = None, **leak: int
) -> Sample:
    """Return a sample of a daemon that sees the leak, with whatever is different."""
    values = {"leaks_opened_total": 1, "leaks_closed_total": 0, "sessions_leaked_total": 3, "leaked_sessions": 3} | leak
    lines = [f"{name}{{{_LEAKING}}} {value}" for name, value in values.items()]
    lines += [f"up {up}", f'poll_failures_total{{reason="network"}} {failed}']
    if up if series is None else series:
        lines.append(f"connections{{{_LEAKING}}} 3")
    text = "".join(f"pgwatch_sessions_{line}\n" for line in lines)
    return Sample(at=at, scrape=Scrape(families=tuple(text_string_to_metric_families(text))), ours=ours)


#: Down from second 10 to 20.
SAMPLES = (
    *(sample(at) for at in range(8, 10)),
    *(sample(at, up=0, failed=at - 9) for at in range(10, 20)),
    *(sample(at, failed=10) for at in range(20, 26)),
)
RIGHT = Witness(
    fault=DOWN,
    samples=SAMPLES,
    making_at=10,
    there_at=10,
    ending_at=20,
    gone_at=20,
    events=[("server_down", 10.5, "network"), ("server_up", 20.5, "")],
    left="",
)


def with_sample(wrong: Sample) -> Witness:
    """Return the run with another sample at that time."""
    return replace(RIGHT, samples=[wrong if wrong.at == each.at else each for each in SAMPLES])


def as_if(**expected: object) -> Witness:
    """Return the run of a fault of which something else is expected."""
    return replace(RIGHT, fault=replace(DOWN, **expected))  # type: ignore[arg-type]  # fields of Fault


WRONG: Sequence[tuple[Witness, str]] = (
    (with_sample(sample(15, up=0, failed=6, ours=3)), "3 sessions of ours at one moment"),
    (with_sample(sample(25, failed=10, ours=2)), "2 sessions of ours at the end"),
    (with_sample(sample(15, failed=5)), "up is 1 5.0 s after the fault"),
    (with_sample(sample(24, up=0, failed=10)), "up is 0 4.0 s after its end"),
    (with_sample(sample(15, up=0, failed=6, series=True)), "connections while the server is not seen"),
    (with_sample(sample(22, failed=10, series=False)), "no series of sessions while the server is seen"),
    (with_sample(sample(15, up=0, failed=6, leaked_sessions=0)), "1 findings opened, 0 closed, 3 sessions ever, 0 now"),
    (with_sample(sample(25, failed=10, leaks_opened_total=2)), "at last 2 findings opened, 0 closed, 3 sessions"),
    (with_sample(Sample(at=24, scrape=None, ours=1)), "no answer 4.0 s after its end"),
    (as_if(reasons=frozenset({"timeout"})), "10 polls failed with the reason network"),
    (as_if(sessions_survive=False), "at last 1 findings opened, 0 closed, 3 sessions"),
    (as_if(seen=Seen.ALWAYS), "up is 0 5.0 s after the fault"),
    (as_if(seen=Seen.AGAIN), "up is 0 5.0 s after the fault"),
    (as_if(seen=Seen.UNANSWERED), "all scrapes were answered"),
    (as_if(logged=("recording_failed",)), "recording_failed was not logged"),
    (as_if(shown={"exhausted": 1}), "exhausted is None and not 1"),
    (replace(RIGHT, left="socket"), "left over: socket"),
    (replace(RIGHT, events=[("noise", 11, "")] * 50), "50 lines in the log"),
)


def test_nothing_is_held_against_a_daemon_that_does_all_right() -> None:
    """And the row of the table has the times."""
    assert complaints(RIGHT) == []
    assert (RIGHT.said, RIGHT.said_after, RIGHT.recovered_after, RIGHT.most_sessions) == ("network", 0.5, 0.5, 1)


@pytest.mark.parametrize(("seen", "complaint"), WRONG, ids=[complaint for _, complaint in WRONG])
def test_each_wrong_is_told(seen: Witness, complaint: str) -> None:
    """One complaint for each kind."""
    assert complaint in complaints(seen)
