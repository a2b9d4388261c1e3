"""Writes the dashboards as Grafana reads them.

    python -m grafana.generate

The files are checked in; a test holds them equal to what this writes.
"""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.fleet import fleet
from grafana.leak import leak
from grafana.server import server

FOLDER = Path(__file__).with_name("dashboards")
DASHBOARDS = {"fleet": fleet, "server": server, "leak": leak}


def encoded(dashboard: Dashboard) -> str:
    """Return the text of a dashboard's file."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all."""
    for name, build in DASHBOARDS.items():
        (FOLDER / f"{name}.json").write_text(encoded(build()), encoding="utf-8")


if __name__ == "__main__":
    main()
