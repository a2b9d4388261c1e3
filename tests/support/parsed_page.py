"""The page as a browser reads it: elements, attributes and texts. Only those of the templates are allowed."""

import re
from html.parser import HTMLParser

from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.web.page.page import (
    Link,
    Page,
    page_of,
)
from pgwatch_sessions.web.page.templates import render_page

ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "article"),
    *("div", "h1", "h2", "h3", "h4", "p", "span", "strong", "small", "a", "code", "pre", "dl", "dt", "dd"),
    *("ul", "ol", "li", "table", "caption", "thead", "tbody", "tr", "th", "td", "meter", "button", "script"),
}
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "http-equiv", "class", "id", "href", "title", "scope", "tabindex"),
    *("value", "max", "low", "high", "optimum", "type", "hidden"),
}


class Parsed(HTMLParser):
    """The elements and texts of a page, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element and its attributes."""
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the tag ends the element opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Record a text with the element around it."""
        self.texts.append((self.open[-1] if self.open else "", data))

    def texts_of(self, *tags: str) -> list[str]:
        """Return the texts directly inside elements of these names."""
        return [text for tag, text in self.texts if tag in tags]


def parsed(*states: ServerState, refreshing: bool = True) -> Parsed:
    """Return the page of these servers after checking that it links to no other site."""
    read = parsed_page(prepared(*states, refreshing=refreshing))
    assert all(
        re.match(r"#leak-|\?refresh=off$|\.$|metrics$|runbooks/\w+#[\w-]+$", attributes["href"] or "")
        for _, attributes in read.elements
        if "href" in attributes
    )
    return read


def parsed_page(page: Page) -> Parsed:
    """Return the page after checking that it has only the elements and attributes of the templates."""
    read = Parsed(render_page(page))
    assert {tag for tag, _ in read.elements} <= ELEMENTS
    assert {name for _, attributes in read.elements for name in attributes} <= ATTRIBUTES
    return read


def prepared(*states: ServerState, refreshing: bool = True) -> Page:
    """Return the texts of the page of these servers."""
    links = [Link(path="/metrics", meaning="numbers")]
    return page_of(states, version="1.2.3", links=links, refreshing=refreshing)


def shown(read: Parsed) -> str:
    """Return the visible text in one line."""
    return " ".join("".join(text for tag, text in read.texts if tag not in {"style", "script"}).split())


def anchors(read: Parsed) -> list[str]:
    """Return the ids that links can point to."""
    return [attributes["id"] or "" for _, attributes in read.elements if "id" in attributes]
