"""The page in a real browser: what a click on the button copies, and what fits on a phone."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pgwatch_sessions.web.page.content_security_policy import CONTENT_SECURITY_POLICY
from pgwatch_sessions.web.page.page import Link, page_of
from pgwatch_sessions.web.page.templates import render_page
from pgwatch_sessions.wording.termination import termination_sql
from tests.support.browser import CHROMIUM, Tab, browser_tab
from tests.support.states import leaking

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]
#: A name of this machine for which a browser does not offer navigator.clipboard over plain HTTP, unlike localhost.
ELSEWHERE = "pgwatch.test"
STATE = leaking()
STATEMENT = termination_sql(STATE.findings[0].sessions)
_CLIPBOARD = "navigator.clipboard.readText()"
_TO_BE_COPIED = "document.addEventListener('copy', () => window.copied = getSelection().toString())"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = page_of([STATE], version="1", links=[Link(path="/metrics", meaning="numbers")], refreshing=False)
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.end_headers()
        self.wfile.write(render_page(page).encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Serve the page of a leaking server, with its policy."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Return a tab that may read the clipboard on localhost."""
    profile: Path = tmp_path_factory.mktemp("profile")
    with browser_tab(profile, f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1") as tab:
        tab.send("Emulation.setFocusEmulationEnabled", enabled=True)
        yield tab


def test_a_click_copies_the_statement(tab: Tab, port: int) -> None:
    """The clipboard holds the whole statement, with its line ends."""
    tab.open(f"http://localhost:{port}/")
    tab.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    tab.click("button.copy")
    assert tab.evaluate("document.querySelector('button.copy').textContent") == "Copied"
    assert tab.evaluate(_CLIPBOARD) == STATEMENT


def test_a_click_copies_the_statement_over_plain_http(tab: Tab, port: int) -> None:
    """Where the browser has no navigator.clipboard, the selection is copied."""
    tab.open(f"http://{ELSEWHERE}:{port}/")
    assert tab.evaluate("navigator.clipboard === undefined")
    tab.evaluate(_TO_BE_COPIED)
    tab.click("button.copy")
    assert tab.evaluate("document.querySelector('button.copy').textContent") == "Copied"
    assert tab.evaluate("window.copied") == STATEMENT


@contextlib.contextmanager
def without_scripts(tab: Tab) -> Iterator[None]:
    """Turn off scripts of pages."""
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    yield
    tab.send("Emulation.setScriptExecutionDisabled", value=False)


def test_without_scripts_a_click_selects_the_statement(tab: Tab, port: int) -> None:
    """There is no button, and one click on the statement selects all of it."""
    with without_scripts(tab):
        tab.open(f"http://localhost:{port}/")
        assert tab.evaluate("document.querySelector('button.copy').offsetParent === null")
        tab.click("pre.sql code")
        assert tab.evaluate("getSelection().toString()") == STATEMENT


def test_the_card_fits_on_a_phone(tab: Tab, port: int) -> None:
    """At 360 pixels the statement is wrapped, and nothing makes the page scroll sideways."""
    tab.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    tab.open(f"http://localhost:{port}/")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('pre.sql'))")
    tab.send("Emulation.clearDeviceMetricsOverride")
