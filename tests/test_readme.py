import re
from pathlib import Path

import pytest

from tests.scenarios.classic import RULES
from tests.scenarios.stories import STORIES

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    """Links within the project lead to files that exist. Links to other sites are not followed."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


def test_the_comparison_counts_every_situation_and_rule() -> None:
    """The table's heads say how many situations there are now, and it has a row for each rule and for the daemon."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    healthy = sum(story.healthy for story in STORIES)
    assert f"leaks found (of {len(STORIES) - healthy}) | false alarms (of {healthy})" in readme
    table = readme.split("| rule |")[1].split("\n\n")[0]
    assert len(table.splitlines()) - 2 == len(RULES) + 1
