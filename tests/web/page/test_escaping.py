from dataclasses import fields, replace
from typing import Any

import pytest

from pgwatch_sessions.core.model import (
    Client,
    ConnectionLimit,
    Failure,
    FailureReason,
    ServerInfo,
)
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.web.page.card import Card
from pgwatch_sessions.web.page.page import (
    Page,
    Poll,
    ServerSection,
)
from pgwatch_sessions.wording.advice import Advice
from tests.support.parsed_page import anchors, parsed, parsed_page, prepared, shown
from tests.support.states import REFUSED, SERVER, after, leaking
from tests.support.values import session, snapshot

#: Without escaping this would run a script, load an image, or end an attribute or element.
HOSTILE = "<script>x()</script><img src=x onerror=y>\"'&amp;</pre></table>"


@pytest.mark.promise("Names from the server cannot become markup, and cannot control a terminal.")
def test_hostile_names_are_text_in_every_place() -> None:
    """Names, statements, tags, limits, roles and error messages are shown unchanged and never become markup."""
    client = Client(HOSTILE, HOSTILE, HOSTILE)
    quoted = HOSTILE.replace('"', "")[:63]
    query = f"SELECT * FROM \"{quoted}\" /*route='{HOSTILE.replace(chr(39), '%27')}'*/"
    leak = leaking(server=HOSTILE, client=client, query=query)
    limited = ServerInfo(max_connections=30, role_limits=(ConnectionLimit(HOSTILE, 3),))
    limited_state = after(
        replace(snapshot(session(1, None, client=client), server=limited), own_user=HOSTILE), server=f"2{HOSTILE}"
    )
    down = after(Failure(reason=FailureReason.OTHER, detail=HOSTILE), server=f"3{HOSTILE}")
    text = shown(parsed(leak, limited_state, down))
    assert text.count(HOSTILE) > 20
    assert f"role {HOSTILE}" in text
    assert f"({HOSTILE})" in text
    assert f'GRANT pg_monitor TO "{HOSTILE.replace(chr(34), chr(34) * 2)}";' in text
    assert f'FROM "{quoted}"' in text


@pytest.mark.promise("Names from the server cannot become markup, and cannot control a terminal.")
@pytest.mark.parametrize(
    "state",
    [
        leaking(),
        leaking(REFUSED),
        after(snapshot(session(1, None, blocked_by=(2,)), session(2), server=SERVER)),
    ],
    ids=["leaking", "failed poll", "hidden"],
)
def test_no_text_of_the_page_can_become_markup(state: ServerState) -> None:
    """If every text is hostile, in elements and in attributes, the page keeps its elements and shows the texts."""
    usual = prepared(state, refreshing=False)
    hostile = parsed_page(hostile_copy(usual))
    assert [tag for tag, _ in hostile.elements if tag != "code"] == [
        tag for tag, _ in parsed_page(usual).elements if tag != "code"
    ]
    (link,) = (attributes for tag, attributes in hostile.elements if tag == "a" and "title" in attributes)
    assert link == {"href": HOSTILE, "title": HOSTILE}
    assert hostile.texts_of("title") == [f"{HOSTILE} · pgwatch-sessions"]
    assert hostile.texts_of("h1", "h2") == [HOSTILE] * 2
    assert set(anchors(hostile)) <= {HOSTILE}


def hostile_copy(value: Any) -> Any:
    """Return the value with a hostile text in place of each text that is not empty."""
    match value:
        case str():
            return value and HOSTILE
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*map(hostile_copy, value))
        case list() | tuple():
            return type(value)(map(hostile_copy, value))
        case Page() | ServerSection() | Poll() | Card() | Advice():
            return replace(value, **{field.name: hostile_copy(getattr(value, field.name)) for field in fields(value)})
        case _:
            assert value is None or isinstance(value, int)
            return value


def test_code_in_advice_is_escaped() -> None:
    """Backquotes in advice make code of the text between them, never markup."""
    page = prepared(leaking())
    (card,) = page.servers[0].cards
    advice = replace(card.advice, cause=f"Run `{HOSTILE}` {HOSTILE}", steps=(f"`{HOSTILE}`",))
    read = parsed_page(replace(page, servers=[replace(page.servers[0], cards=[replace(card, advice=advice)])]))
    assert read.texts_of("code").count(HOSTILE) == 2
    assert f" {HOSTILE}" in read.texts_of("p")
