"""The runbooks, and the code on their pages."""

import re
import textwrap

from tests.support.alert_rules import ALERTS

PAGES = tuple(sorted((ALERTS / "runbooks").glob("*.md")))
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the code blocks of all pages in a language, each with its page's name."""
    return [
        (page.stem, textwrap.dedent(text))
        for page in PAGES
        for _, spoken, text in _BLOCK.findall(page.read_text())
        if spoken == language
    ]
