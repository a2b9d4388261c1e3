"""What is kept across a restart, and what is made of it: simulated servers, with the daemon killed at any poll."""

import contextlib
import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.core.events import LeakOpened
from pgwatch_sessions.core.findings import FindingId
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, FailureReason, ServerInfo, SessionId, SessionState, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.memory.saved_state import (
    UnusableStateError,
    decode_state,
    encode_state,
    is_worth_a_write,
    written,
)
from pgwatch_sessions.memory.state_file import StateFile
from pgwatch_sessions.web.page.page import page_of
from pgwatch_sessions.web.page.templates import render_page
from tests.scenarios.families import FAMILIES, draw_story
from tests.scenarios.story import begin, polls
from tests.support.states import SERVER, leaking, polls_at_a_leak
from tests.support.values import NOW, session, snapshot

POLICY = Policy()
STORIES = tuple(FAMILIES)[::4]


class Lived(NamedTuple):
    """A poll of a story, the state after it, and what was written by then."""

    outcome: Snapshot | Failure
    state: ServerState
    kept: ServerState | None


@cache
def lived(family: str) -> Sequence[Lived]:
    """Return the polls of a drawn story."""
    story = draw_story(family, "77")
    state, kept, all_lived = ServerState(server="db"), None, []
    for poll in polls(story, begin(story, seed=0)):
        state = after(state, poll.outcome)
        kept = state if is_worth_a_write(written(kept) if kept else None, state) else kept
        all_lived.append(Lived(poll.outcome, state, kept))
    return all_lived


def after(state: ServerState, outcome: Snapshot | Failure) -> ServerState:
    """Return the state after one more poll."""
    return advance(state, outcome, policy=POLICY, at=NOW, duration=0.01)[0]


def restarted(state: ServerState) -> ServerState:
    """Return what a new process begins with if the state was written last."""
    return decode_state(encode_state(state, statements="redacted"), server=state.server, statements="redacted")


def findings(state: ServerState) -> dict[FindingId, frozenset[SessionId]]:
    """Return the sessions of each open finding."""
    return {finding.id: frozenset(each.id for each in finding.sessions) for finding in state.findings}


@given(family=st.sampled_from(STORIES), data=st.data())
def test_everything_that_the_next_poll_needs_is_read_as_it_was(family: str, data: st.DataObject) -> None:
    """At any poll of any story. So the next polls are judged as if nothing had happened."""
    state = data.draw(st.sampled_from(lived(family))).state
    read = restarted(state)
    assert read.memory == replace(state.memory, had_hidden=False, had_folded=False)
    assert (read.leak_counters, read.labelled, read.last_success) == (
        state.leak_counters,
        state.labelled,
        state.last_success,
    )
    assert not read.polled, "nothing that was polled before is shown as if it were fresh"


@given(family=st.sampled_from(STORIES), gap=st.integers(0, 3), data=st.data())
def test_after_a_kill_at_any_poll_no_finding_is_lost_or_opened_twice(
    family: str, gap: int, data: st.DataObject
) -> None:
    """Counters go on, and the first poll shows the findings of a daemon that was not killed but missed some polls."""
    told = lived(family)
    killed_at = data.draw(st.integers(0, len(told) - 6))
    _, state, kept = told[killed_at]
    begun = restarted(kept) if kept else ServerState(server="db")
    assert begun.leak_counters == state.leak_counters
    for outcome, _, _ in told[killed_at + 1 + gap :][:2]:
        known = {identity for sessions in findings(begun).values() for identity in sessions}
        begun, events = advance(begun, outcome, policy=POLICY, at=NOW, duration=0.01)
        opened = {each.id for event in events if isinstance(event, LeakOpened) for each in event.finding.sessions}
        assert not opened & known
        state = after(state, outcome)
        assert findings(begun) == findings(state)
        assert begun.leak_counters == state.leak_counters


def test_what_was_reported_is_written_at_once_and_the_rest_once_a_minute() -> None:
    """A leaking server is written when a finding opens or changes. A server at which nothing moves is not written."""
    kept: list[ServerState] = []
    state = ServerState(server="db")
    opened = 0
    for outcome in polls_at_a_leak():
        state, events = advance(state, outcome, policy=POLICY, at=NOW, duration=0.01)
        opened += any(isinstance(event, LeakOpened) for event in events)
        if is_worth_a_write(written(kept[-1]) if kept else None, state):
            kept.append(state)
        assert kept[-1].leak_counters == state.leak_counters
        assert findings(kept[-1]) == findings(state)
    assert opened == 1

    still = session(1, SessionState.IDLE, since=NOW - 50)
    quiet = after(ServerState(server="db"), snapshot(still))
    later = after(quiet, snapshot(still, at=NOW + 3600))
    assert is_worth_a_write(None, quiet)
    assert not is_worth_a_write(written(quiet), later)
    used = replace(still, state_change=NOW + 5, query_start=NOW + 5)
    assert not is_worth_a_write(written(quiet), after(quiet, snapshot(used, at=NOW + 10)))
    assert is_worth_a_write(written(quiet), after(quiet, snapshot(used, at=NOW + 60)))


def test_a_failed_poll_and_no_poll_are_not_written() -> None:
    """A server that was never seen has nothing to keep."""
    failure = Failure(reason=FailureReason.NETWORK)
    assert not is_worth_a_write(None, ServerState(server="db"))
    assert not is_worth_a_write(None, after(ServerState(server="db"), failure))


def test_a_server_that_restarted_meanwhile_keeps_habits_and_no_session() -> None:
    """Its finding has no session any more, and closes; a session with an old pid is a new one."""
    state = leaking()
    begun = restarted(state)
    assert len(begun.findings[0].sessions) > 10
    at = (state.last_poll_at or 0) + 60
    new_start = ServerInfo(version_num=180004, started_at=at - 30, max_connections=30)
    same_pid = session(100, SessionState.IDLE_IN_TRANSACTION, born=at - 20, since=at - 10)
    next_ = after(begun, snapshot(same_pid, at=at, server=new_start))
    (finding,) = next_.findings
    assert finding.sessions == ()
    assert finding.opened_at == state.findings[0].opened_at
    assert next_.memory.history.habits.keys() >= state.memory.history.habits.keys()
    assert {track.birth_seen for track in next_.memory.history.tracks.values()} == {True}


def test_sessions_that_ended_meanwhile_have_ended() -> None:
    """The finding goes on with those that are left."""
    begun = restarted(leaking())
    at = (begun.last_poll_at or 0) + 600
    left = [each for each in begun.findings[0].sessions if each.id.pid < 103]
    next_ = after(begun, snapshot(*left, at=at, server=SERVER))
    assert {each.id.pid for each in next_.findings[0].sessions} == {100, 101, 102}
    assert next_.leak_counters == begun.leak_counters


@pytest.mark.promise("Literals of statements stay secret.")
def test_nothing_of_a_literal_is_in_the_file_and_without_texts_no_text() -> None:
    """Statements are redacted before they become part of a state."""
    content = gzip.decompress(encode_state(leaking(), statements="redacted"))
    assert b"FROM orders WHERE id" in content
    assert b"swordfish" not in content
    document = json.loads(content)
    assert (document["server"], document["statements"]) == ("orders-db", "redacted")
    hidden = replace(parse_statement("SELECT a FROM cards"), text="", summary="(statement)")
    state = after(ServerState(server="db"), snapshot(session(1, SessionState.IDLE, statement=hidden)))
    assert b"cards" not in gzip.decompress(encode_state(state, statements="off"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"server": "billing"}, "is of another server"),
        ({"statements": "off"}, "was written with another setting of `statements`"),
        ({"version": "1-0123456789abcdef"}, "was written by another version of pgwatch-sessions"),
        ({"version": None, "server": "billing"}, "was written by another version of pgwatch-sessions"),
        ({"state": None}, "is damaged"),
        ({"state": [[], [1, 2]]}, "is damaged"),
        ({"state": [[[9, 9]], []]}, "is damaged"),
    ],
)
def test_a_file_that_says_something_else_is_of_no_use(change: dict[str, object], reason: str) -> None:
    """The reason is the end of a sentence."""
    document = json.loads(gzip.decompress(encode_state(leaking(), statements="redacted")))
    with pytest.raises(UnusableStateError, match=reason):
        decode_state(gzip.compress(json.dumps(document | change).encode()), server="orders-db", statements="redacted")


@pytest.mark.promise("A file that it reads can neither end nor exhaust it.")
@given(st.data())
def test_a_damaged_file_is_noticed_wherever_it_is_damaged(data: st.DataObject) -> None:
    """It was cut, or a byte has changed, or it is something else."""
    whole = encode_state(leaking(), statements="redacted")
    place = data.draw(st.integers(0, len(whole) - 1))
    cut, changed = whole[:place], whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]
    for damaged in (cut, data.draw(st.binary()), gzip.compress(data.draw(st.binary()))):
        with pytest.raises(UnusableStateError, match="is damaged"):
            decode_state(damaged, server="orders-db", statements="redacted")
    with contextlib.suppress(UnusableStateError):
        # A byte of gzip's header does not matter.
        assert decode_state(changed, server="orders-db", statements="redacted").memory == leaking().memory


def test_until_the_first_poll_the_page_shows_what_was_known_last() -> None:
    """Findings are shown with their ages at the last poll, and the server as not polled yet."""
    page = render_page(page_of([restarted(leaking())], version="1", links=(), refreshing=False))
    assert "14 sessions idle in transaction at /orders/{id}, the longest for 6 min" in page
    assert "orders-db was not polled yet" in page


@pytest.mark.promise("A file that it reads can neither end nor exhaust it.")
def test_only_a_regular_file_of_a_possible_size_is_read(tmp_path: Path) -> None:
    """Opening a FIFO waits for a writer. Each is an OSError, so the daemon says it and goes on."""
    file = StateFile(directory=tmp_path, server="db", statements="redacted")
    assert file.read() is None
    os.mkfifo(file.path)
    with pytest.raises(OSError, match="not a regular file"):
        file.read()
    file.path.unlink()
    with file.path.open("wb") as large:
        large.truncate(2**30)  # zeros, which take no room on the disk
    with pytest.raises(OSError, match="larger than 32 MiB"):
        file.read()
