import re
from pathlib import Path

import pytest

from pgwatch_sessions.metrics.table import METRICS

NO_LABEL = "\N{EN DASH}"
ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def metrics_table() -> str:
    """Return the table of metrics as the README shows it."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or NO_LABEL
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    rows.append(f"| `build_info` | info | {NO_LABEL} | The version of pgwatch-sessions; without the label `server`. |")
    return "\n".join(rows)


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    """Names, types, labels and meanings have one home."""
    assert f"-->\n\n{metrics_table()}\n\n<!-- /metrics -->" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    """Links within the project only; the others are for people to follow."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []
