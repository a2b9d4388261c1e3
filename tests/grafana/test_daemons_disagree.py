"""What panels show if two daemons that watch the same server report different values."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pgwatch_sessions.core.findings import Severity
from pgwatch_sessions.metrics.table import PREFIX
from tests.support.dashboard_expressions import expressions, fill_variables

#: For each site, the finding's severity and sessions according to the first and the second daemon.
_FINDINGS: Mapping[str, tuple[tuple[Severity, int], tuple[Severity, int]]] = {
    "/warning-twice": ((Severity.WARNING, 4), (Severity.WARNING, 4)),
    "/critical-and-notice": ((Severity.CRITICAL, 7), (Severity.NOTICE, 7)),
    "/warning-and-critical": ((Severity.WARNING, 3), (Severity.CRITICAL, 3)),
    "/notice-and-warning": ((Severity.NOTICE, 1), (Severity.WARNING, 1)),
    "/notice-twice": ((Severity.NOTICE, 2), (Severity.NOTICE, 2)),
}
_CLIENT = {"database": "shop", "user": "app", "application": "orders"}
_SERVER = {"server": "db"}
_KIND = {"kind": "transaction_held"}
#: The expected rows: one for each finding, with its gravest severity.
_EXPECTED_ROWS = {
    ("/warning-twice", Severity.WARNING): 4,
    ("/critical-and-notice", Severity.CRITICAL): 7,
    ("/warning-and-critical", Severity.CRITICAL): 3,
    ("/notice-and-warning", Severity.WARNING): 1,
    ("/notice-twice", Severity.NOTICE): 2,
}


def _row(site: str, severity: Severity) -> dict[str, str]:
    return {"site": site, "severity": severity, **_KIND}


#: The expected series by panel and legend: their labels and values.
_EXPECTED: Mapping[tuple[str, str], Sequence[tuple[Mapping[str, str], int]]] = {
    ("fleet: Open findings", "critical"): [({}, 2)],
    ("fleet: Open findings", "warning"): [({}, 2)],
    ("fleet: Open findings", "notice"): [({}, 1)],
    ("fleet: Servers", "Critical"): [(_SERVER, 2)],
    ("fleet: Servers", "Warning"): [(_SERVER, 2)],
    ("fleet: Servers", "Leaked sessions"): [(_SERVER, 17)],
    ("fleet: Who leaks", "Sessions"): [
        ({**_SERVER, **_CLIENT, **_row(*key)}, count) for key, count in _EXPECTED_ROWS.items()
    ],
    ("leak: Findings", "Sessions"): [(_row(*key), count) for key, count in _EXPECTED_ROWS.items()],
}


@pytest.mark.parametrize("selected", [None, {**_SERVER, **_CLIENT}], ids=["all", "one"])
def test_a_finding_counts_once_with_its_gravest_severity(tmp_path: Path, selected: Mapping[str, str] | None) -> None:
    """If two daemons report different severities, each finding is one row and counts once, with the graver severity."""
    if not (promtool := shutil.which("promtool")):
        pytest.skip("promtool is not installed: apt install prometheus")
    values = selected or dict.fromkeys((*_SERVER, *_CLIENT))
    texts = {(each.place, each.name): fill_variables(each.text, values, window="1m") for each in expressions()}
    checks = [
        {
            "expr": texts[panel_and_legend],
            "eval_time": "5m",
            "exp_samples": [{"labels": _labels(labels), "value": value} for labels, value in samples],
        }
        for panel_and_legend, samples in _EXPECTED.items()
    ]
    test = {"interval": "1m", "input_series": _series(), "promql_expr_test": checks}
    file = tmp_path / "disagreeing.yml"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}), encoding="utf-8")  # JSON is YAML
    result = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def _series() -> list[dict[str, str]]:
    """Return the series that Prometheus scraped from both daemons."""
    series = []
    for number, instance in enumerate(("a:9488", "b:9488")):
        daemon = {"instance": instance, "job": "any", **_SERVER}
        series.append({"series": f"{PREFIX}up{_labels(daemon)}", "values": "1x10"})
        for site, by_daemon in _FINDINGS.items():
            severity, count = by_daemon[number]
            labels = {**daemon, **_CLIENT, **_row(site, severity)}
            series.append({"series": f"{PREFIX}leaked_sessions{_labels(labels)}", "values": f"{count}x10"})
    return series


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"
