"""What panels show where two daemons that watch one server do not say the same."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pgwatch_sessions.core.findings import Severity
from pgwatch_sessions.metrics.table import PREFIX
from tests.grafana.expressions import expressions, filled

#: A finding's sessions by severity, as the first daemon has it and as the second has it, by site.
_FINDINGS: Mapping[str, tuple[tuple[Severity, int], tuple[Severity, int]]] = {
    "/both": ((Severity.WARNING, 4), (Severity.WARNING, 4)),
    "/grave": ((Severity.CRITICAL, 7), (Severity.NOTICE, 7)),
    "/other": ((Severity.WARNING, 3), (Severity.CRITICAL, 3)),
    "/small": ((Severity.NOTICE, 1), (Severity.WARNING, 1)),
    "/some": ((Severity.NOTICE, 2), (Severity.NOTICE, 2)),
}
_CLIENT = {"database": "shop", "user": "app", "application": "orders"}
_SERVER = {"server": "db"}
_KIND = {"kind": "transaction_held"}
#: One row a finding, with its gravest severity.
_ROWS = {
    ("/both", Severity.WARNING): 4,
    ("/grave", Severity.CRITICAL): 7,
    ("/other", Severity.CRITICAL): 3,
    ("/small", Severity.WARNING): 1,
    ("/some", Severity.NOTICE): 2,
}


def _row(site: str, severity: Severity) -> dict[str, str]:
    return {"site": site, "severity": severity, **_KIND}


#: By panel and name: the labels and the value of each series.
_SHOWN: Mapping[tuple[str, str], Sequence[tuple[Mapping[str, str], int]]] = {
    ("fleet: Open findings", "critical"): [({}, 2)],
    ("fleet: Open findings", "warning"): [({}, 2)],
    ("fleet: Open findings", "notice"): [({}, 1)],
    ("fleet: Servers", "Critical"): [(_SERVER, 2)],
    ("fleet: Servers", "Warning"): [(_SERVER, 2)],
    ("fleet: Servers", "Leaked sessions"): [(_SERVER, 17)],
    ("fleet: Who leaks", "Sessions"): [({**_SERVER, **_CLIENT, **_row(*of)}, count) for of, count in _ROWS.items()],
    ("leak: Findings", "Sessions"): [(_row(*of), count) for of, count in _ROWS.items()],
}


@pytest.mark.parametrize("chosen", [None, {**_SERVER, **_CLIENT}], ids=["all", "one"])
def test_a_finding_counts_once_at_its_gravest(tmp_path: Path, chosen: Mapping[str, str] | None) -> None:
    """Two daemons differ on severities: each finding is one row and one in the counts, as the graver one has it."""
    if not (promtool := shutil.which("promtool")):
        pytest.skip("promtool is not installed: apt install prometheus")
    values = chosen or dict.fromkeys((*_SERVER, *_CLIENT))
    texts = {(each.place, each.name): filled(each.text, values, window="1m") for each in expressions()}
    asked = [
        {
            "expr": texts[of],
            "eval_time": "5m",
            "exp_samples": [{"labels": _labels(labels), "value": value} for labels, value in samples],
        }
        for of, samples in _SHOWN.items()
    ]
    played = {"interval": "1m", "input_series": _series(), "promql_expr_test": asked}
    file = tmp_path / "disagreeing.yml"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [played]}), encoding="utf-8")  # JSON is YAML
    told = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


def _series() -> list[dict[str, str]]:
    """Return what Prometheus has scraped from both daemons."""
    series = []
    for number, instance in enumerate(("a:9488", "b:9488")):
        watcher = {"instance": instance, "job": "any", **_SERVER}
        series.append({"series": f"{PREFIX}up{_labels(watcher)}", "values": "1x10"})
        for site, said in _FINDINGS.items():
            severity, count = said[number]
            labels = {**watcher, **_CLIENT, **_row(site, severity)}
            series.append({"series": f"{PREFIX}leaked_sessions{_labels(labels)}", "values": f"{count}x10"})
    return series


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"
