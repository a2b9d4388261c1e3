"""The runbooks over HTTP: every page, every link between them, and who may read them."""

import re
from urllib.parse import urljoin

import pytest

from pgwatch_sessions.assets.catalogue import read_runbook, runbook_names
from pgwatch_sessions.core.findings import LeakKind
from pgwatch_sessions.web.page.content_security_policy import CONTENT_SECURITY_POLICY, STYLE_SHEET
from pgwatch_sessions.web.runbooks import runbook_page
from pgwatch_sessions.wording.runbooks import PROJECT, SERVED, published
from tests.support.web import served


def hrefs(html: str) -> list[str]:
    """Return the targets of all links."""
    return re.findall(r'href="([^"]*)"', html)


@pytest.mark.parametrize("path", ["/runbooks/", "/runbooks"])
async def test_the_list_links_to_every_runbook(path: str) -> None:
    """With and without a slash at the end, also below a reverse proxy's prefix: links are relative."""
    async with served() as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        home, *links = hrefs(answer.text)
        prefixed = f"/proxy{path}"
        assert urljoin(prefixed, home) == "/proxy/"
        assert [urljoin(prefixed, link) for link in links] == [f"/proxy/runbooks/{name}" for name in runbook_names()]


async def test_every_runbook_is_a_page_with_the_policy_of_the_page() -> None:
    """It needs no script and no other style sheet. HEAD is answered too."""
    async with served() as client:
        for name in runbook_names():
            for path in (f"/runbooks/{name}", f"/runbooks/{name}.md"):
                answer = await client.get(path)
                assert answer.status_code == 200
                assert f'<h1 id="{name.lower()}">{name}</h1>' in answer.text
                assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
                assert f"<style>{STYLE_SHEET}</style>" in answer.text
                assert " style=" not in answer.text
                assert "<script" not in answer.text
        assert (await client.head("/runbooks/DatabaseConnectionLeak")).status_code == 200


async def test_links_between_runbooks_lead_to_a_page_and_its_heading() -> None:
    """Links to other files of the project lead to its site."""
    async with served() as client:
        pages = {f"{SERVED}{name}": (await client.get(f"{SERVED}{name}")).text for name in runbook_names()}
    followed = 0
    for path, html in pages.items():
        for href in hrefs(html.partition("<main")[2]):
            target, _, anchor = urljoin(path, href).partition("#")
            if target.startswith(PROJECT):
                assert re.fullmatch(r"(?:deploy|docs)/[\w/.-]+", target.removeprefix(PROJECT)), href
                continue
            assert target in pages, href
            assert not anchor or f' id="{anchor}"' in pages[target], href
            followed += 1
    assert followed > 20


def test_every_kind_of_leak_has_a_heading_here_and_on_the_site() -> None:
    """The advice links to it. GitHub gives headings the same anchors."""
    page = runbook_page("DatabaseConnectionLeak").decode()
    assert [kind for kind in LeakKind if f' id="{kind.replace("_", "-")}"' not in page] == []
    address = published(f"{SERVED}DatabaseConnectionLeak#transaction-held")
    assert address == f"{PROJECT}alerts/runbooks/DatabaseConnectionLeak.md#transaction-held"


def test_tables_and_code_are_rendered() -> None:
    """A wide table scrolls, and every block of code is one."""
    page = runbook_page("DatabaseConnectionLeak").decode()
    assert page.count('<div class="wide" tabindex="0"><table>') == page.count("</table></div>") > 0
    assert page.count("<pre><code") == read_runbook("DatabaseConnectionLeak").count("```") / 2 > 10
    assert "```" not in page


@pytest.mark.parametrize(
    "path", ["/runbooks/Nonsense", "/runbooks/..%2f..%2fREADME", "/runbooks/.md", "/runbooks/databaseconnectionleak"]
)
async def test_an_unknown_name_is_404_with_the_list(path: str) -> None:
    """The answer does not repeat the name."""
    async with served() as client:
        answer = await client.get(path)
        assert answer.status_code == 404
        assert answer.text.startswith(
            ("No runbook has this name. Runbooks: Database", "Nothing here. Known addresses: ")
        )
        assert "onsense" not in answer.text
