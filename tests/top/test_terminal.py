"""`pgwatch-sessions top` on a real terminal of 80 columns and 24 lines, with a real server."""

import base64
import re
import signal
from pathlib import Path

import pytest

from tests.support.screens import on_terminal
from tests.support.servers import Database
from tests.support.situations import idle_in_transaction
from tests.support.terminals import at_terminal

LEAKED = "SELECT 's3cret' /*route='/orders/{id}'*/"
#: As fast as a test wants it.
QUICK = ("--hold-limit", "1s", "--interval", "200ms")
_COLOUR = re.compile(rb"\x1b\[[\d;]*\b(?:3[0-7]|4[0-7]|38;|48;|9[0-7])")
_OSC_52 = re.compile(rb"\x1b\]52;c;([^\a]+)\a")


def test_a_finding_is_shown_opened_and_copied_and_q_gives_the_terminal_back(database: Database) -> None:
    """Without colour too. Its statement goes to the clipboard by OSC 52, and is shown to be copied by hand."""
    with (
        idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED) as pid,
        on_terminal("top", "--dsn", database.dsn(), *QUICK, env={"NO_COLOR": "1"}) as terminal,
    ):
        before = terminal.modes()
        shown = terminal.until_shown(lambda text: "NOTICE" in text)
        assert f"> NOTICE      orders-api ({database.name}, postgres): 1 session idle in" in shown
        assert re.search(r"^the server +\[#*\.+\] +\d+ of \d+$", shown, re.MULTILINE)
        assert re.search(rf"^  orders-api \({database.name},.* 1 .* - +- +1 .* s ", shown, re.MULTILINE)
        assert shown.splitlines()[-1].startswith("Enter open")
        terminal.press("\r")
        opened = terminal.until_shown(lambda text: "likely cause" in text)
        assert re.search(rf"^ +{pid} +\d+ s +idle in transaction +127.0.0.1 +SELECT \?", opened, re.MULTILINE)
        terminal.press("y")
        statement = terminal.until_shown(lambda text: "Sent to the clipboard" in text)
        (copied,) = _OSC_52.findall(terminal.written)
        sql = base64.b64decode(copied).decode()
        assert f"{pid}" in sql
        assert " ".join(statement.split()).startswith(" ".join(sql.split()))
        terminal.press("qqq")
        assert terminal.end() == 0
        assert terminal.modes() == before
    for sequence in (b"\x1b[?1049l", b"\x1b[?25h"):  # the screen from before, and the cursor
        assert sequence in terminal.written
    assert not _COLOUR.search(terminal.written)
    assert b"s3cret" not in terminal.written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(database: Database, number: signal.Signals) -> None:
    """So it does when the ssh line is cut, or when an administrator ends the program."""
    with on_terminal("top", "--dsn", database.dsn(), *QUICK) as terminal:
        before = terminal.modes()
        terminal.until_shown(lambda text: "the server" in text)
        terminal.process.send_signal(number)
        terminal.end()
        assert terminal.modes() == before
        assert b"\x1b[?1049l" in terminal.written
        assert b"Traceback" not in terminal.written


def test_only_what_changed_is_sent(database: Database) -> None:
    """A refresh takes less than a quarter of a full screen, so that a slow line suffices."""
    with on_terminal("top", "--dsn", database.dsn(), *QUICK) as terminal:
        terminal.until_shown(lambda text: "the server" in text)
        times = {terminal.until_shown(lambda text: "polled" in text).splitlines()[1]}
        before = len(terminal.written)
        while len(times) < 4:
            times.add(terminal.text().splitlines()[1])
        assert len(terminal.written) - before < 3 * 80 * 24 / 4


@pytest.mark.parametrize(("variable", "value", "error"), [
    ("TERM", "dumb", "top cannot draw on a terminal of type 'dumb' (TERM)"),
    ("PYTHONIOENCODING", "latin-1", "top needs UTF-8"),
])  # fmt: skip
def test_a_terminal_that_is_too_simple_is_refused(variable: str, value: str, error: str) -> None:
    """The error says what to use instead."""
    with on_terminal("top", columns=200, env={variable: value}) as terminal:
        assert terminal.end() == 2
        assert error in terminal.text()


def test_a_pipe_is_refused() -> None:
    """The error names the command for pipes."""
    shown = at_terminal("top", pipe_output=True)
    assert shown.code == 2
    assert "use: pgwatch-sessions check --follow" in shown.terminal


def test_without_textual_the_error_says_what_to_install(tmp_path: Path) -> None:
    """The line can be pasted."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'textual':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    with on_terminal("top", columns=200, env={"PYTHONPATH": str(tmp_path)}) as terminal:
        assert terminal.end() == 2
        assert "pip install 'pgwatch-sessions[top]'" in terminal.text()
