import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.alerts.rules import rules, write_without_intervals
from tests.bench.fleet import exposed, served
from tests.e2e.prometheus import PROGRAM, Prometheus, running_prometheus
from tests.support.waiting import until

_FEW, _MANY = 10, 1_000
_CLIENTS, _LEAKING = 4, 2


@pytest.mark.skipif(PROGRAM is None, reason="Prometheus is not installed: apt install prometheus")
def test_what_rules_record_and_alert_does_not_grow_with_sessions(tmp_path: Path) -> None:
    """Clients with 10 and with 1,000 sessions each, some of them leaking: as many series of every rule."""
    pages = {
        f"/{sessions}": exposed("db", clients=_CLIENTS, sessions=sessions, leaking=_LEAKING)
        for sessions in (_FEW, _MANY)
    }
    # Both worlds in one Prometheus, apart by a label as anybody may add one to a target.
    with served(pages) as address:
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
            counted = f'count by (world, __name__) ({{__name__=~{json.dumps(names)},world!=""}})'
            until(lambda: len(prometheus.ask("pgwatch_sessions_up == 1")) == len(pages), within=30)
            seen = time.time()
            # The second evaluation after both were seen reads what the first recorded of them.
            for _ in range(3):
                until(lambda since=seen: min(_evaluated(prometheus)) > since, within=30)  # type: ignore[misc]  # mypy infers no default of a lambda
                seen = time.time()
            found: dict[str, dict[str, float]] = {}
            for labels, count in prometheus.ask(counted):
                found.setdefault(labels["world"], {})[labels["__name__"]] = count
    few, many = found[f"/{_FEW}"], found[f"/{_MANY}"]
    assert few == many
    assert {"ALERTS", "site:pgwatch_sessions_leaked_sessions:leak", "db_connections_active"} <= few.keys()


def _evaluated(prometheus: Prometheus) -> list[float]:
    """Return when each group was last evaluated."""
    return [datetime.fromisoformat(group["lastEvaluation"]).timestamp() for group in prometheus.groups()]
