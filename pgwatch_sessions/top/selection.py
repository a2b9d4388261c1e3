"""What the person has chosen: the server, the order, the filter, the row, and what is opened."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pgwatch_sessions.top.view import ClientId, ClientView, FindingView, ServerView, View
from pgwatch_sessions.wording.labels import client_name

#: A row that can be selected, and what identifies it: the finding's id, or the client.
Item = FindingView | ClientView
ItemId = str | ClientId


class Order(StrEnum):
    """How clients are sorted."""

    PROBLEMS = "problems first"
    SESSIONS = "most sessions"
    IN_TRANSACTION = "most idle in transaction"
    AGE = "longest in transaction"
    NAME = "name"


class Page(StrEnum):
    """What fills the screen."""

    MAIN = "main"
    FINDING = "finding"
    CLIENT = "client"
    STATEMENT = "statement"
    NOT_JUDGED = "not judged"
    HELP = "help"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Everything that keys change."""

    #: None until there is a view.
    server: str | None = None
    #: None for the first row, whichever that is at the moment.
    row: ItemId | None = None
    order: Order = Order.PROBLEMS
    #: Only findings and clients whose text contains this are listed.
    filter: str = ""
    #: Whether keys go into the filter.
    typing: bool = False
    paused: bool = False
    page: Page = Page.MAIN
    #: The finding that is opened. It stays as it was last if it closes meanwhile.
    finding: FindingView | None = None
    client: ClientId | None = None
    #: The first line of the page that is shown, for pages longer than the screen.
    scroll: int = 0


_SORT_KEYS: Mapping[Order, Callable[[ClientView], tuple[object, ...]]] = {
    Order.PROBLEMS: lambda client: (client.is_healthy, -client.sessions),
    Order.SESSIONS: lambda client: (-client.sessions,),
    Order.IN_TRANSACTION: lambda client: (-(client.in_transaction or 0),),
    Order.AGE: lambda client: (-(client.in_transaction_seconds or 0.0),),
    Order.NAME: lambda client: (client.id.client.short_name.casefold(),),
}


def follow(selection: Selection, view: View) -> Selection:
    """Return the selection for a new view: a server that exists, a row that exists, the opened finding as it is now."""
    servers = [server.name for server in view.servers]
    server = selection.server
    if server not in servers:
        worst = [finding.server for finding in view.findings]
        server = next(iter((*worst, *servers)), None)
    current = {finding.id: finding for finding in view.findings}
    finding = selection.finding and current.get(selection.finding.id, selection.finding)
    selection = replace(selection, server=server, finding=finding)
    is_listed = any(item.id == selection.row for item in items(selection, view))
    return replace(selection, row=selection.row if is_listed else None)


def row_of(selection: Selection, view: View) -> ItemId | None:
    """Return the selected row; None if there is no row."""
    return selection.row or next((item.id for item in items(selection, view)), None)


def server_of(selection: Selection, view: View) -> ServerView | None:
    """Return the selected server; None if there is no view of it."""
    return next((server for server in view.servers if server.name == selection.server), None)


def items(selection: Selection, view: View) -> Sequence[Item]:
    """Return the rows that can be selected: findings first, then clients."""
    return (*findings(selection, view), *clients(selection, view))


def findings(selection: Selection, view: View) -> Sequence[FindingView]:
    """Return the listed findings of the selected server, the worst first."""
    return [
        finding
        for finding in view.findings
        if finding.server == selection.server and _matches(selection, finding.sentence)
    ]


def clients(selection: Selection, view: View) -> Sequence[ClientView]:
    """Return the listed clients of the selected server, in the selected order: those that have a session."""
    server = server_of(selection, view)
    listed = [
        client
        for client in (server.clients if server else ())
        if client.sessions and _matches(selection, client_name(client.id.client))
    ]
    return sorted(listed, key=lambda client: (*_SORT_KEYS[selection.order](client), client.id))


def _matches(selection: Selection, text: str) -> bool:
    return selection.filter.casefold() in text.casefold()
