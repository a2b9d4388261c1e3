import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.bench.fleet import serve_pages, server_metrics
from tests.e2e.prometheus import PROGRAM, Prometheus, running_prometheus
from tests.support.alert_rules import rules, write_without_intervals
from tests.support.waiting import until

_FEW, _MANY = 10, 1_000
_CLIENTS, _LEAKING = 4, 2


@pytest.mark.skipif(PROGRAM is None, reason="Prometheus is not installed: apt install prometheus")
def test_rules_record_as_many_series_for_many_sessions_as_for_few(tmp_path: Path) -> None:
    """Clients with 1,000 sessions each have as many recorded series and alerts as clients with 10, leaks included."""
    pages = {
        f"/{sessions}": server_metrics("db", clients=_CLIENTS, sessions=sessions, leaking=_LEAKING)
        for sessions in (_FEW, _MANY)
    }
    # One Prometheus scrapes both; the label `world` keeps their series apart.
    with serve_pages(pages) as address:
        targets = [
            {"targets": [address], "labels": {"__metrics_path__": path, "world": path, "instance": f"daemon{path}"}}
            for path in pages
        ]
        configuration = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": write_without_intervals(tmp_path),
            "scrape_configs": [{"job_name": "pgwatch-sessions", "static_configs": targets}],
        }
        with running_prometheus(configuration) as prometheus:
            names = "|".join(sorted({"ALERTS", *(rule.name for rule in rules() if not rule.is_alert)}))
            count_by_name = f'count by (world, __name__) ({{__name__=~{json.dumps(names)},world!=""}})'
            until(lambda: len(prometheus.query("pgwatch_sessions_up == 1")) == len(pages), within=30)
            begin = time.time()
            # Rules that read other rules need a second evaluation.
            for _ in range(3):
                until(lambda since=begin: min(_evaluation_times(prometheus)) > since, within=30)  # type: ignore[misc]  # mypy infers no default of a lambda
                begin = time.time()
            counts: dict[str, dict[str, float]] = {}
            for labels, count in prometheus.query(count_by_name):
                counts.setdefault(labels["world"], {})[labels["__name__"]] = count
    few, many = counts[f"/{_FEW}"], counts[f"/{_MANY}"]
    assert few == many
    assert {"ALERTS", "site:pgwatch_sessions_leaked_sessions:leak", "db_connections_active"} <= few.keys()


def _evaluation_times(prometheus: Prometheus) -> list[float]:
    """Return the time of each rule group's last evaluation."""
    return [datetime.fromisoformat(group["lastEvaluation"]).timestamp() for group in prometheus.groups()]
