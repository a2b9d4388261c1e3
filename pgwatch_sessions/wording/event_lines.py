"""The line about each event: the daemon's log, its terminal, `replay` and the demo say it with the same words."""

import shlex
from collections.abc import Mapping, Sequence

from pgwatch_sessions.core.events import (
    ClientsFolded,
    DiagnosisChanged,
    Event,
    LeakChanged,
    LeakClosed,
    LeakOpened,
    PrivilegeMissing,
    ServerDown,
    ServerEvent,
    ServerUp,
)
from pgwatch_sessions.core.findings import Finding, Verdict
from pgwatch_sessions.wording.amounts import counted
from pgwatch_sessions.wording.events import FOLDED_CLIENTS_REMEDY, grant_statement
from pgwatch_sessions.wording.labels import client_name, printable
from pgwatch_sessions.wording.lines import Line, Tone, finding_label, finding_tone
from pgwatch_sessions.wording.sentences import (
    closed_text,
    diagnosis_change_text,
    down_text,
    finding_sentence,
    folded_text,
    hidden_text,
)

_VERDICT_TONES = {Verdict.OK: Tone.GOOD, Verdict.UNKNOWN: Tone.NOTE}
#: Verdicts that other events tell of.
_TOLD = frozenset({Verdict.OK, Verdict.LEAKING, Verdict.UNKNOWN})
#: Servers, or targets, that a line names.
_MAX_NAMED = 5

STOPPED = Line("stopped", Tone.NOTE, "polling has ended, and every connection is closed")
RECORDING_RESUMED = Line("recording", Tone.GOOD, "polls are recorded again")
DISCOVERY_RESUMED = Line("discovery", Tone.GOOD, "the source of servers can be read again")
ANSWER_NOT_UNDERSTOOD = Line("protocol", Tone.WARN, "the server sent an answer that we do not understand; see `stack`")
STATEMENT_TEXTS_LEFT_OUT = Line(
    "texts",
    Tone.WARN,
    "the link to this server is slow: two polls ran out of time while their answer arrived. Statement texts are not "
    "read until the connection is made anew",
)
STATEMENT_TEXTS_READ_AGAIN = Line("texts", Tone.NOTE, "statement texts are read again")
STATE_RESUMED = Line("state", Tone.GOOD, "the state is kept across a restart again")


def event_text(event: Event, *, at: float) -> str:
    """Return the sentence on an event. `at` is the server's time of the poll that caused it."""
    return event_line(event, at=at).text


def event_line(event: Event, *, at: float) -> Line:
    """Return the label, the tone and the sentence of an event."""
    match event:
        case LeakOpened(finding) | LeakChanged(finding):
            return Line(finding_label(finding), finding_tone(finding), finding_sentence(finding, at=at))
        case LeakClosed(finding):
            return Line("closed", Tone.GOOD, f"{client_name(finding.key.client)}: {closed_text(finding, at=at)}")
        case DiagnosisChanged(diagnosis, before):
            tone = _VERDICT_TONES.get(diagnosis.verdict, Tone.WARN)
            return Line("diagnosis", tone, diagnosis_change_text(diagnosis, before))
        case _:
            return _server_line(event)


def _server_line(event: ServerEvent) -> Line:
    match event:
        case ServerUp(slots):
            used = f": {slots.used:,} of {counted(slots.capacity, 'connection')} in use" if slots else ""
            return Line("up", Tone.GOOD, f"the server can be polled{used}")
        case ServerDown(failure):
            return Line("down", Tone.BAD, down_text(failure))
        case PrivilegeMissing(role, hidden, sessions):
            return Line(
                "hidden", Tone.WARN, f"{hidden_text(hidden, sessions)}. As a superuser, run: {grant_statement(role)}"
            )
        case ClientsFolded(folded):
            return Line("folded", Tone.WARN, f"{folded_text(folded)}: {FOLDED_CLIENTS_REMEDY}")


def is_said_by_another(event: object) -> bool:
    """Return whether the line of another event says the same, so that people need not read it twice.

    A change to or from `leaking` has the line of a finding, and one to or from `unknown` that of what is not seen.
    """
    return isinstance(event, DiagnosisChanged) and {event.diagnosis.verdict, event.before or Verdict.OK} <= _TOLD


def is_other_finding(finding: Finding, before: Finding) -> bool:
    """Return whether a finding has another label, client, kind or site than before: more than its numbers changed."""
    return (finding_label(finding), finding.key) != (finding_label(before), before.key)


def started_line(*, version: str, servers: Sequence[str], interval: float, page: str, metrics: str | None) -> Line:
    """Return what is watched how often, and where the page is."""
    where = f"page: {page}/" + (f", metrics: {metrics}/metrics" if metrics else "")
    text = f"pgwatch-sessions {version} polls {_named(servers) or 'no server yet'} every {interval:g} s; {where}"
    return Line("started", Tone.NOTE, printable(text))


def stuck_line(problem: str) -> Line:
    """Return why the process ends by itself."""
    return Line("stuck", Tone.BAD, f"{problem}; the process ends, so that it can be started again")


def recording_failed_line(error: str) -> Line:
    """Return why a poll is not in the recording."""
    return Line("recording", Tone.BAD, printable(f"a poll could not be recorded: {error}; polling continues"))


def state_failed_line(error: str) -> Line:
    """Return why the state of a server is not in its file."""
    text = f"the state could not be written: {error}; polling continues, but a restart begins with an older state"
    return Line("state", Tone.BAD, printable(text))


def state_ignored_line(path: str, reason: str) -> Line:
    """Return why a file with a state is not used."""
    text = f"{path} {reason}, so it is not used: findings, counters and habits begin anew"
    return Line("state", Tone.WARN, printable(text))


def state_restored_line(findings: int, since: str) -> Line:
    """Return that the daemon goes on where it was ended; `since` is the time of its last poll."""
    return Line("state", Tone.NOTE, f"goes on with what was known at {since}: {counted(findings, 'open finding')}")


def config_refused_line(errors: Sequence[str]) -> Line:
    """Return why a changed configuration is not used."""
    text = f"the changed configuration cannot be used, so the former one stays in use: {'; '.join(errors)}"
    return Line("refused", Tone.BAD, printable(text))


#: What is said of each kind of change of the configuration.
_CHANGES = {
    "added": "added {}",
    "removed": "removed {}",
    "reconnected": "reconnected {}",
    "settings": "changed {}",
    "restart_to_change": "restart the daemon to change {}",
}


def config_reloaded_line(changed: Mapping[str, Sequence[str]]) -> Line:
    """Return what a new configuration has changed: names of servers and settings, by the keys of `_CHANGES`."""
    parts = [text.format(", ".join(changed[kind])) for kind, text in _CHANGES.items() if changed.get(kind)]
    tone = Tone.WARN if changed.get("restart_to_change") else Tone.NOTE
    text = f"the configuration was read again: {'; '.join(parts) or 'nothing has changed'}"
    return Line("reloaded", tone, printable(text))


def http_refused_line(limit: int) -> Line:
    """Return that file descriptors run out, and what to do; `limit` is how many the process may have."""
    text = (
        f"file descriptors run out (limit: {limit}), so HTTP connections wait or are closed, and the last descriptors "
        "are kept for PostgreSQL; raise the limit with LimitNOFILE= of systemd, --ulimit of Docker, or ulimit -n"
    )
    return Line("refused", Tone.BAD, text)


def login_missing_line(address: str) -> Line:
    """Return that the page can be read without a login from other machines, and what to do."""
    text = (
        f"the page at {address} needs no login: everybody who reaches it sees names and redacted statements. Set "
        "web_config; or listen on 127.0.0.1, and let Prometheus use metrics_listen"
    )
    return Line("open", Tone.WARN, printable(text))


def secret_readable_line(path: str, holds: str) -> Line:
    """Return that every user can read a file, and what to do; `holds` is `a password`, for example."""
    text = f"every user of this machine can read {holds} in {path}; run: chmod o-r {shlex.quote(path)}"
    return Line("open", Tone.WARN, printable(text))


def login_failed_line(address: str, failed: int) -> Line:
    """Return that logins with a wrong user or password came from an address."""
    return Line(
        "login", Tone.WARN, printable(f"{counted(failed, 'login')} from {address} failed: wrong user or password")
    )


def web_config_failed_line(errors: Sequence[str]) -> Line:
    """Return why a changed web configuration is not used."""
    text = f"the changed web configuration cannot be used, so the former one stays in use: {'; '.join(errors)}"
    return Line("refused", Tone.BAD, printable(text))


def web_config_reloaded_line(path: str) -> Line:
    """Return that a changed web configuration is used."""
    return Line("reloaded", Tone.NOTE, printable(f"{path}: the changed web configuration is in use now"))


def discovery_failed_line(error: str) -> Line:
    """Return why a source of servers cannot be read. The servers that it has found stay."""
    return Line("discovery", Tone.BAD, printable(f"{error}; the servers found before stay"))


def targets_refused_line(source: str, problems: Sequence[str]) -> Line:
    """Return which targets of a source cannot be used, and why."""
    named, others = problems[:_MAX_NAMED], len(problems) - _MAX_NAMED
    more = f"; and {counted(others, 'other')}" if others > 0 else ""
    text = f"{counted(len(problems), 'target')} of {source} cannot be used: {'; '.join(named)}{more}"
    return Line("discovery", Tone.WARN, printable(text))


def servers_found_line(added: Sequence[str], removed: Sequence[str]) -> Line:
    """Return which servers a source has found, and which it has no more."""
    parts = [f"{word} {_named(names)}" for word, names in (("added", added), ("removed", removed)) if names]
    return Line("discovery", Tone.NOTE, printable("; ".join(parts)))


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _MAX_NAMED else counted(len(names), "server")
