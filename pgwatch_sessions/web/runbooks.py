"""The runbooks as HTML pages, made from their Markdown when each is first asked for.

A module of its own, because it loads markdown-it-py: 1 MiB of memory that a daemon needs only once somebody reads a
runbook.
"""

import functools
import posixpath
import re
from itertools import pairwise

from markdown_it import MarkdownIt

from pgwatch_sessions.assets.catalogue import RUNBOOKS, read_runbook
from pgwatch_sessions.web.page.templates import render_runbook
from pgwatch_sessions.wording.runbooks import PROJECT


@functools.cache
def runbook_page(name: str) -> bytes:
    """Return the page of a runbook, which must exist."""
    markdown = _markdown()
    tokens = markdown.parse(read_runbook(name))
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(following.content))
        for part in token.children or ():
            if part.type == "link_open":
                part.attrSet("href", _href(str(part.attrGet("href"))))
    return render_runbook(name, markdown.renderer.render(tokens, markdown.options, {})).encode()


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")  # HTML in the Markdown is escaped
    markdown.add_render_rule("table_open", _open_table)
    markdown.add_render_rule("table_close", _close_table)
    return markdown


def _open_table(*_: object) -> str:
    return '<div class="wide" tabindex="0"><table>\n'


def _close_table(*_: object) -> str:
    return "</table></div>\n"


def _href(link: str) -> str:
    """Return the address of a linked file: the daemon's page of a runbook, the project's site for any other file."""
    path, hash_sign, anchor = link.partition("#")
    if not path or "://" in path:
        return link
    if "/" not in path:
        return f"{path.removesuffix('.md')}{hash_sign}{anchor}"
    return f"{PROJECT}{posixpath.normpath(posixpath.join(RUNBOOKS, path))}{hash_sign}{anchor}"


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading, so that the same links work there and here."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
