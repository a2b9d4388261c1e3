"""What each part of the program says about servers: the log, `check`, the page, the JSON documents, a replay.

Each is reduced to the same values, so that a test can compare them.
"""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.daemons import Daemon
from tests.support.programs import finished


class Said(NamedTuple):
    """An open finding, by what a person acts on."""

    server: str
    severity: str
    application: str
    site: str
    kind: str


class Sentence(NamedTuple):
    """A finding as people read it. Each number and duration is a `#`, because time goes on between two voices."""

    server: str
    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """What one part of the program says."""

    findings: frozenset[Said]
    #: None of a log or a replay: its last sentence is as old as its last event.
    sentences: frozenset[Sentence] | None
    #: Verdicts other than ok, by server and application; the application is empty for the server itself.
    verdicts: Mapping[tuple[str, str], str]


def of_events(events: Iterable[Mapping[str, Any]]) -> Voice:
    """Return what is open, and the last verdicts, after the events of a log or a replay."""
    findings: dict[tuple[Any, ...], Said] = {}
    verdicts: dict[tuple[str, str], str] = {}
    for event in events:
        if event["event"].startswith("leak_"):
            key = *(event[name] for name in ("server", "database", "user", "application")), event["site"]
            findings[key] = _said(event["server"], event)
            if event["event"] == "leak_closed":
                del findings[key]
        elif event["event"] == "diagnosis_changed":
            verdicts[event["server"], event.get("application", "")] = event["diagnosis"]
    return Voice(findings=frozenset(findings.values()), sentences=None, verdicts=_wrong(verdicts))


def of_check(*arguments: str) -> tuple[Voice, Mapping[str, Any]]:
    """Return what `check` says as JSON, and the document."""
    document = json.loads(finished("check", "--format", "json", *arguments).stdout)
    findings = [{"server": server["server"], **each} for server in document["servers"] for each in server["findings"]]
    return _of_documents(findings, document), document


def of_api(daemon: Daemon) -> Voice:
    """Return what the JSON documents say."""
    leaks = daemon.get("/api/v1/leaks").raise_for_status().json()["leaks"]
    return _of_documents(leaks, daemon.get("/api/v1/diagnosis").raise_for_status().json())


def text_of_check(*arguments: str) -> frozenset[Sentence]:
    """Return the findings in the text of `check`."""
    said, server = set(), ""
    for line in finished("check", *arguments).stdout.splitlines():
        if heading := re.match(r"(\S+): \d+ polls?, ", line):
            server = heading[1]
        elif found := re.match(r"(NOTICE|WARNING|CRITICAL)  (.*)", line):
            said.add(_sentence(server, found[1].lower(), found[2]))
    return frozenset(said)


def text_of_page(daemon: Daemon) -> frozenset[Sentence]:
    """Return the headings of the page's cards."""
    heading = r'<h3><span class="badge[^>]*>(.*?)</span>\s*<a href="#leak-[^>]*>(.*?)</a></h3>'
    return frozenset(
        _sentence(html.unescape(name), label, html.unescape(text))
        for name, section in re.findall(r"<h2>(.*?)</h2>(.*?)</section>", daemon.get("/").text, re.DOTALL)
        for label, text in re.findall(heading, section)
    )


def of_metrics(daemon: Daemon) -> frozenset[Said]:
    """Return the findings by their labels."""
    labels = ("server", "severity", "application", "site", "kind")
    return frozenset(
        Said(*(sample.labels[name] for name in labels))
        for family in daemon.scrape().families
        for sample in family.samples
        if sample.name == "pgwatch_sessions_leaked_sessions" and sample.value
    )


def replayed(folder: Path, *arguments: str) -> Sequence[Mapping[str, Any]]:
    """Replay all recordings of a folder, one after the other; return the events."""
    joined = folder.with_suffix(".jsonl.gz")
    joined.write_bytes(b"".join(file.read_bytes() for file in sorted(folder.iterdir())))
    output = finished("replay", "--format", "json", str(joined), *arguments).stdout
    return [json.loads(line) for line in output.splitlines()]


def _of_documents(findings: Iterable[Mapping[str, Any]], diagnoses: Mapping[str, Any]) -> Voice:
    held = [each for each in findings if each["sessions"]]
    return Voice(
        findings=frozenset(_said(each["server"], each) for each in held),
        sentences=frozenset(_sentence(each["server"], each["severity"], each["message"]) for each in held),
        verdicts=_verdicts(diagnoses),
    )


def _said(server: str, fields: Mapping[str, Any]) -> Said:
    return Said(server, fields["severity"], fields["application"], fields["site"], fields["kind"])


def _verdicts(document: Mapping[str, Any]) -> Mapping[tuple[str, str], str]:
    return _wrong(
        {
            (server["server"], each.get("application", "")): each["diagnosis"]
            for server in document["servers"]
            for each in (server, *server["clients"])
        }
    )


def _wrong(verdicts: Mapping[tuple[str, str], str]) -> Mapping[tuple[str, str], str]:
    return {who: verdict for who, verdict in verdicts.items() if verdict != "ok"}


def _sentence(server: str, label: str, text: str) -> Sentence:
    return Sentence(server, label, re.sub(r"\d[\d.,]*\d|\d", "#", re.sub(r"(\d) (?:s|min|h)\b", r"\1", text)))
