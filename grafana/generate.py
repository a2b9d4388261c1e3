"""Write the dashboards as JSON files for Grafana.

    python -m grafana.generate

The files are checked in, and a test fails if they differ from what this writes.
"""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.application import application
from grafana.fleet import fleet
from grafana.leak import leak
from grafana.server import server

FOLDER = Path(__file__).with_name("dashboards")
DASHBOARDS = {"fleet": fleet, "server": server, "leak": leak, "application": application}


def encode(dashboard: Dashboard) -> str:
    """Return the JSON text of a dashboard."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all dashboards."""
    for name, build in DASHBOARDS.items():
        (FOLDER / f"{name}.json").write_text(encode(build()), encoding="utf-8")


if __name__ == "__main__":
    main()
