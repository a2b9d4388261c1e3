import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.alerts.rules import ROOT, loaded, needs_amtool, needs_promtool, ran
from tests.support.waiting import until

CONFIG = ROOT / "deploy/alertmanager/alertmanager.yml"
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
#: Debian has the daemon under a name of its own.
_PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
CLIENT = {"server": "db", "database": "shop", "user": "app", "application": "orders"}


@needs_amtool
def test_amtool_accepts_the_configuration() -> None:
    """As it is shipped."""
    checked = ran("amtool", "check-config", CONFIG)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_amtool
def test_the_commented_examples_are_valid_too(tmp_path: Path) -> None:
    """E-mail, Slack and PagerDuty, when somebody takes the comment signs away."""
    example = re.compile(r"^( *)# ((?:  )*(?:- )?(?:\w+:|text: >-| *\(?{{).*)$")
    text = "\n".join(
        f"{match[1]}{match[2]}" if (match := example.match(line)) else line for line in CONFIG.read_text().splitlines()
    )
    (tmp_path / "alertmanager.yml").write_text(text)
    receivers = loaded(tmp_path / "alertmanager.yml")["receivers"]
    assert {key for each in receivers for key in each} == {
        "name", "webhook_configs", "pagerduty_configs", "slack_configs", "email_configs",
    }  # fmt: skip
    checked = ran("amtool", "check-config", tmp_path / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    secrets = re.findall(r"^ *(?:- )?(?:routing_key|api_url|smtp_auth_password|service_key)\w*: .*", text, re.MULTILINE)
    assert len(secrets) == 3
    assert all("_file: /" in secret for secret in secrets)


@needs_promtool
def test_promtool_accepts_prometheus_configuration() -> None:
    """It finds the rule files from where it stands."""
    checked = ran("promtool", "check", "config", "--lint=all", "--lint-fatal", PROMETHEUS)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "2 rule files found" in checked.stdout


@needs_amtool
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [({"severity": "critical"}, "wake"), ({"severity": "warning"}, "attention"), ({}, "attention")],
    ids=["critical", "warning", "none"],
)
def test_severity_decides_who_is_told(labels: Mapping[str, str], receiver: str) -> None:
    """`critical` wakes somebody, everything else is seen on the same day."""
    said = ran(
        "amtool", "config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={receiver}",
        *(f"{name}={value}" for name, value in {**CLIENT, **labels}.items()),
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Start an Alertmanager with the shipped configuration; a client of it."""
    if _PROGRAM is None:
        pytest.skip("alertmanager is not installed: apt install prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("alertmanager")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = (_PROGRAM, f"--config.file={CONFIG}", f"--storage.path={folder}", "--cluster.listen-address=",
               f"--web.listen-address={address}")  # fmt: skip
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process:
        try:
            with httpx.Client(base_url=f"http://{address}", transport=httpx.HTTPTransport()) as client:
                until(lambda: _ready(client))
                yield client
        finally:
            process.terminate()


def _ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/-/ready").is_success
    return False


def alert(name: str, severity: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Return an alert's labels."""
    return {"alertname": name, "severity": severity, **labels}


LEAK = alert("DatabaseConnectionLeak", "critical", {**CLIENT, "site": "/orders"})
FULL = alert("DatabaseConnectionsExhausted", "critical", {"server": "db"})
ROLE = {"server": "db", "scope": "role", "name": "app"}
SLOTS = {"server": "db", "scope": "server", "name": "db"}


@pytest.mark.parametrize(
    ("source", "target", "inhibited"),
    [
        (LEAK, {**LEAK, "severity": "warning"}, True),
        (LEAK, {**LEAK, "severity": "warning", "site": "/carts"}, False),
        (LEAK, {**LEAK, "severity": "warning", "application": "carts"}, False),
        (LEAK, {**LEAK, "severity": "warning", "cluster": "west"}, False),
        ({**LEAK, "pod": "a"}, {**LEAK, "severity": "warning", "pod": "b"}, True),
        (LEAK, alert("DatabasePoolSaturated", "warning", CLIENT), True),
        (LEAK, alert("DatabaseIdleInTransactionTooLong", "warning", CLIENT), True),
        (LEAK, alert("DatabaseIdleInTransactionTooLong", "warning", {**CLIENT, "application": "psql"}), False),
        (LEAK, alert("DatabaseTransactionHoldsVacuum", "warning", CLIENT), False),
        (LEAK, FULL, False),
        (FULL, alert("DatabaseConnectionsExhaustionPredicted", "critical", SLOTS), True),
        (FULL, alert("DatabaseActiveConnectionsHigh", "warning", {"server": "db"}), True),
        (FULL, alert("DatabaseActiveConnectionsHigh", "warning", {"server": "dc"}), False),
        (FULL, LEAK, False),
        (
            alert("DatabaseRoleLimitNear", "critical", ROLE),
            alert("DatabaseConnectionsExhaustionPredicted", "critical", ROLE),
            True,
        ),
        (
            alert("DatabaseRoleLimitNear", "critical", ROLE),
            alert("DatabaseConnectionsExhaustionPredicted", "critical", SLOTS),
            False,
        ),
        (
            alert("PgwatchSessionsDown", "critical", {}),
            alert("PgwatchSessionsBlind", "warning", {"server": "db"}),
            True,
        ),
        (
            alert("PgwatchSessionsDown", "warning", {"instance": "a:9488"}),
            alert("PgwatchSessionsBlind", "warning", {"server": "db"}),
            False,
        ),
    ],
)
def test_what_is_said_by_something_graver_is_not_said_twice(
    alertmanager: httpx.Client, source: dict[str, str], target: dict[str, str], *, inhibited: bool
) -> None:
    """A real Alertmanager, asked which of two alerts it would keep quiet."""
    # Apart from the other tests', which live on in the same program.
    environment = {"environment": os.urandom(4).hex()}
    posted = [{"labels": {**labels, **environment}} for labels in (source, target)]
    alertmanager.post("/api/v2/alerts", json=posted).raise_for_status()
    # Inhibition is worked out a moment after the alerts are known.
    until(lambda: [bool(each["status"]["inhibitedBy"]) for each in _known(alertmanager, posted)] == [False, inhibited])


#: Labels that Prometheus or whoever runs it adds to tell servers apart.
PLACE = {"cluster": "west", "namespace": "shop", "environment": "live"}
#: Of each inhibition: what inhibits, what is inhibited, and the labels in which the two must not differ.
PAIRS = (
    (
        {**LEAK, **PLACE, "scope": "role", "name": "app", "reason": "failing"},
        {**LEAK, **PLACE, "scope": "role", "name": "app", "reason": "failing", "severity": "warning"},
        {*PLACE, *CLIENT, "alertname", "site", "scope", "name", "reason"},
    ),
    ({**LEAK, **PLACE}, {**alert("DatabasePoolSaturated", "warning", CLIENT), **PLACE}, {*PLACE, *CLIENT}),
    (
        {**FULL, **PLACE},
        {**alert("DatabaseConnectionsExhaustionPredicted", "critical", SLOTS), **PLACE},
        {*PLACE, "server"},
    ),
    (
        {**alert("DatabaseRoleLimitNear", "critical", ROLE), **PLACE},
        {**alert("DatabaseConnectionsExhaustionPredicted", "critical", ROLE), **PLACE},
        {*PLACE, *ROLE},
    ),
    (
        alert("PgwatchSessionsDown", "critical", {"cluster": "west", "environment": "live"}),
        {**alert("PgwatchSessionsBlind", "warning", {"server": "db", "reason": "stuck"}), **PLACE},
        {"cluster", "environment"},
    ),
)


def _variants() -> Iterator[tuple[str, dict[str, str], dict[str, str], bool]]:
    """Give each pair as it is, which is inhibited, and differing in one label, which is not; and what it is called."""
    for source, target, telling in PAIRS:
        for label in (None, *sorted(telling)):
            apart = {"environment": os.urandom(4).hex()}
            alike = {**target, **apart}
            other = alike if label is None else {**alike, label: f"{alike[label]}Else"}
            yield (
                f"{source['alertname']} over {target['alertname']}, {label}",
                {**source, **apart},
                other,
                label is None,
            )


def test_what_differs_in_one_label_is_told(alertmanager: httpx.Client) -> None:
    """A trouble of another server, client, site, limit or place is not kept quiet; the same one is."""
    assert len(PAIRS) == len(loaded(CONFIG)["inhibit_rules"])
    variants = tuple(_variants())
    assert len({name for name, *_ in variants}) == len(variants)
    posted = [{"labels": labels} for _, *pair, _ in variants for labels in pair]
    alertmanager.post("/api/v2/alerts", json=posted).raise_for_status()
    until(lambda: _inhibited(alertmanager, variants) >= {name for name, *_, inhibited in variants if inhibited})
    assert _inhibited(alertmanager, variants) == {name for name, *_, inhibited in variants if inhibited}


def _inhibited(
    alertmanager: httpx.Client, variants: Sequence[tuple[str, dict[str, str], dict[str, str], bool]]
) -> set[str]:
    known = alertmanager.get("/api/v2/alerts").raise_for_status().json()
    quiet = [each["labels"] for each in known if each["status"]["inhibitedBy"]]
    return {name for name, _, target, _ in variants if target in quiet}


@pytest.mark.parametrize("severity", ["critical", "warning", "info"])
def test_one_message_is_about_one_application_on_one_server(alertmanager: httpx.Client, severity: str) -> None:
    """Whoever is told; the alerts of different sites and of different kinds come together."""
    labels = {**LEAK, **PLACE, "severity": severity, "environment": os.urandom(4).hex()}
    posted = [{"labels": labels}]
    alertmanager.post("/api/v2/alerts", json=posted).raise_for_status()
    [group] = until(lambda: _groups(alertmanager, labels))
    assert group["labels"] == {name: labels[name] for name in (*PLACE, "server", "application")}


def _groups(alertmanager: httpx.Client, labels: Mapping[str, str]) -> list[Any]:
    groups = alertmanager.get("/api/v2/alerts/groups").raise_for_status().json()
    return [group for group in groups if labels in [each["labels"] for each in group["alerts"]]]


def test_who_is_woken_is_told_sooner_and_again_within_the_hour() -> None:
    """What nobody has to get up for is repeated twice a day."""
    root = loaded(CONFIG)["route"]
    names = ("receiver", "group_wait", "group_interval", "repeat_interval")
    times = [tuple({**root, **route}[name] for name in names) for route in (root, *root["routes"])]
    assert times == [
        ("attention", "30s", "5m", "12h"),
        ("wake", "10s", "5m", "1h"),
        ("attention", "30s", "5m", "12h"),
    ]


def _known(alertmanager: httpx.Client, posted: list[dict[str, Any]]) -> list[Any]:
    known = alertmanager.get("/api/v2/alerts").raise_for_status().json()
    found = [each for wanted in posted for each in known if each["labels"] == wanted["labels"]]
    processed = all(each["status"]["state"] != "unprocessed" for each in found)
    return found if len(found) == len(posted) and processed else []
