"""Turns the page's texts into HTML with Jinja2, which escapes every text.

Sections and cards are macros, because a macro joins its own output. With includes, Jinja2 joins all parts of the page
at the end: after a page of 50 findings the process kept 4.5 MiB more.
"""

from collections.abc import Iterable

from jinja2 import Environment, PackageLoader, StrictUndefined

from pgwatch_sessions.web.page.content_security_policy import SCRIPT, STYLE_SHEET
from pgwatch_sessions.web.page.page import Page

_ENVIRONMENT = Environment(
    loader=PackageLoader("pgwatch_sessions.web.page", ""),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["thousands"] = "{:,}".format
#: Compiled at import, so that no request waits for it.
_TEMPLATES = {name: _ENVIRONMENT.get_template(name) for name in _ENVIRONMENT.list_templates(["html"])}


def render_page(page: Page) -> str:
    """Return the page as one HTML document, with its style sheet and its script."""
    return _TEMPLATES["page.html"].render(page=page, style_sheet=STYLE_SHEET, script=SCRIPT)


def render_runbook(name: str, body: str) -> str:
    """Return a runbook as one HTML document. The body is HTML."""
    return _TEMPLATES["runbook.html"].render(name=name, body=body, style_sheet=STYLE_SHEET)


def render_runbook_list(names: Iterable[str], *, folder: str) -> str:
    """Return the list of all runbooks as one HTML document. `folder` leads from its address to theirs."""
    return _TEMPLATES["runbooks.html"].render(names=names, folder=folder, style_sheet=STYLE_SHEET)
