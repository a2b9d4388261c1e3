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

from tests.support.alert_rules import ROOT, load_yaml, needs_amtool, needs_promtool, run_tool
from tests.support.waiting import until

CONFIG = ROOT / "deploy/alertmanager/alertmanager.yml"
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
#: Debian calls the program prometheus-alertmanager.
_PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
CLIENT = {"server": "db", "database": "shop", "user": "app", "application": "orders"}


@needs_amtool
def test_amtool_accepts_the_configuration() -> None:
    """The shipped file is valid."""
    checked = run_tool("amtool", "check-config", CONFIG)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_amtool
def test_the_commented_examples_are_valid_too(tmp_path: Path) -> None:
    """The file is also valid with the commented e-mail, Slack and PagerDuty receivers switched on."""
    example = re.compile(r"^( *)# ((?:  )*(?:- )?(?:\w+:|text: >-| *\(?{{).*)$")
    text = "\n".join(
        f"{match[1]}{match[2]}" if (match := example.match(line)) else line for line in CONFIG.read_text().splitlines()
    )
    (tmp_path / "alertmanager.yml").write_text(text)
    receivers = load_yaml(tmp_path / "alertmanager.yml")["receivers"]
    assert {key for each in receivers for key in each} == {
        "name", "webhook_configs", "pagerduty_configs", "slack_configs", "email_configs",
    }  # fmt: skip
    checked = run_tool("amtool", "check-config", tmp_path / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    secrets = re.findall(r"^ *(?:- )?(?:routing_key|api_url|smtp_auth_password|service_key)\w*: .*", text, re.MULTILINE)
    assert len(secrets) == 3
    assert all("_file: /" in secret for secret in secrets)


@needs_promtool
def test_promtool_accepts_prometheus_configuration() -> None:
    """The configuration is valid, and its relative paths lead to the rule files."""
    checked = run_tool("promtool", "check", "config", "--lint=all", "--lint-fatal", PROMETHEUS)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "2 rule files found" in checked.stdout


@needs_amtool
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [({"severity": "critical"}, "wake"), ({"severity": "warning"}, "attention"), ({}, "attention")],
    ids=["critical", "warning", "none"],
)
def test_severity_decides_the_receiver(labels: Mapping[str, str], receiver: str) -> None:
    """`critical` alerts go to the receiver that wakes somebody, all others to `attention`."""
    checked = run_tool(
        "amtool", "config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={receiver}",
        *(f"{name}={value}" for name, value in {**CLIENT, **labels}.items()),
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Start an Alertmanager with the shipped configuration, and yield an HTTP client for it."""
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
    """Return the labels of an alert."""
    return {"alertname": name, "severity": severity, **labels}


LEAK = alert("DatabaseConnectionLeak", "critical", {**CLIENT, "site": "/orders"})
FULL = alert("DatabaseConnectionsExhausted", "critical", {"server": "db"})
POOL = {"application": "orders", "db_client_connection_pool_name": "main"}
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
        (LEAK, alert("DatabasePoolTimeouts", "warning", POOL), False),
        (alert("DatabasePoolTimeouts", "critical", POOL), alert("DatabasePoolTimeouts", "warning", POOL), True),
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
def test_a_graver_alert_suppresses_what_it_already_says(
    alertmanager: httpx.Client, source: dict[str, str], target: dict[str, str], *, inhibited: bool
) -> None:
    """A real Alertmanager suppresses the target alert or not; it never suppresses the source alert."""
    # A random label keeps this test's alerts apart from those of other tests in the same Alertmanager.
    environment = {"environment": os.urandom(4).hex()}
    posted = [{"labels": {**labels, **environment}} for labels in (source, target)]
    alertmanager.post("/api/v2/alerts", json=posted).raise_for_status()
    # Alertmanager computes inhibition a moment after it lists the alerts.
    until(
        lambda: [bool(each["status"]["inhibitedBy"]) for each in _processed(alertmanager, posted)] == [False, inhibited]
    )


#: Labels that Prometheus or its operators add to tell servers apart.
PLACE = {"cluster": "west", "namespace": "shop", "environment": "live"}
#: For each inhibition rule: the alert that suppresses, the alert that is suppressed, and the labels that must be equal.
PAIRS = (
    (
        {**LEAK, **PLACE, **POOL, "scope": "role", "name": "app", "reason": "failing"},
        {**LEAK, **PLACE, **POOL, "scope": "role", "name": "app", "reason": "failing", "severity": "warning"},
        {*PLACE, *CLIENT, *POOL, "alertname", "site", "scope", "name", "reason"},
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
        {**alert("PgwatchSessionsBlind", "warning", {"server": "db", "reason": "failing"}), **PLACE},
        {**alert("PgwatchSessionsLate", "warning", {"server": "db", "instance": "watch:9488"}), **PLACE},
        {*PLACE, "server"},
    ),
    (
        alert("PgwatchSessionsDown", "critical", {"cluster": "west", "environment": "live"}),
        {**alert("PgwatchSessionsBlind", "warning", {"server": "db", "reason": "stuck"}), **PLACE},
        {"cluster", "environment"},
    ),
)


def _variants() -> Iterator[tuple[str, dict[str, str], dict[str, str], bool]]:
    """Yield a name, the two alerts, and whether the second is suppressed: once with equal labels, then one differs."""
    for source, target, equal_labels in PAIRS:
        for label in (None, *sorted(equal_labels)):
            environment = {"environment": os.urandom(4).hex()}
            matching = {**target, **environment}
            variant = matching if label is None else {**matching, label: f"{matching[label]}Else"}
            yield (
                f"{source['alertname']} over {target['alertname']}, {label}",
                {**source, **environment},
                variant,
                label is None,
            )


def test_an_alert_that_differs_in_one_label_is_not_suppressed(alertmanager: httpx.Client) -> None:
    """An alert on another server, client, site, limit or place still notifies; one on the same is suppressed."""
    assert len(PAIRS) == len(load_yaml(CONFIG)["inhibit_rules"])
    variants = tuple(_variants())
    assert len({name for name, *_ in variants}) == len(variants)
    posted = [{"labels": labels} for _, *pair, _ in variants for labels in pair]
    alertmanager.post("/api/v2/alerts", json=posted).raise_for_status()
    until(lambda: _inhibited(alertmanager, variants) >= {name for name, *_, inhibited in variants if inhibited})
    assert _inhibited(alertmanager, variants) == {name for name, *_, inhibited in variants if inhibited}


def _inhibited(
    alertmanager: httpx.Client, variants: Sequence[tuple[str, dict[str, str], dict[str, str], bool]]
) -> set[str]:
    alerts = alertmanager.get("/api/v2/alerts").raise_for_status().json()
    suppressed = [each["labels"] for each in alerts if each["status"]["inhibitedBy"]]
    return {name for name, _, target, _ in variants if target in suppressed}


@pytest.mark.parametrize("severity", ["critical", "warning", "info"])
def test_one_message_is_about_one_application_on_one_server(alertmanager: httpx.Client, severity: str) -> None:
    """For every receiver, Alertmanager groups alerts on different sites and of different kinds into one message."""
    labels = {**LEAK, **PLACE, "severity": severity, "environment": os.urandom(4).hex()}
    posted = [{"labels": labels}]
    alertmanager.post("/api/v2/alerts", json=posted).raise_for_status()
    [group] = until(lambda: _groups(alertmanager, labels))
    assert group["labels"] == {name: labels[name] for name in (*PLACE, "server", "application")}


def _groups(alertmanager: httpx.Client, labels: Mapping[str, str]) -> list[Any]:
    groups = alertmanager.get("/api/v2/alerts/groups").raise_for_status().json()
    return [group for group in groups if labels in [each["labels"] for each in group["alerts"]]]


def test_critical_alerts_notify_sooner_and_repeat_every_hour() -> None:
    """All other alerts repeat twice a day."""
    root = load_yaml(CONFIG)["route"]
    names = ("receiver", "group_wait", "group_interval", "repeat_interval")
    times = [tuple({**root, **route}[name] for name in names) for route in (root, *root["routes"])]
    assert times == [
        ("attention", "30s", "5m", "12h"),
        ("wake", "10s", "5m", "1h"),
        ("attention", "30s", "5m", "12h"),
    ]


def _processed(alertmanager: httpx.Client, posted: list[dict[str, Any]]) -> list[Any]:
    """Return the posted alerts as Alertmanager lists them; nothing until it has processed all of them."""
    alerts = alertmanager.get("/api/v2/alerts").raise_for_status().json()
    listed = [each for wanted in posted for each in alerts if each["labels"] == wanted["labels"]]
    processed = all(each["status"]["state"] != "unprocessed" for each in listed)
    return listed if len(listed) == len(posted) and processed else []
