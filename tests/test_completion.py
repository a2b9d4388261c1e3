"""`pgwatch-sessions completion`: the scripts in real shells."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pgwatch_sessions.command_line import COMMANDS
from tests.support.programs import finished

#: Each runs the script and then prints what the shell offers for the words in $LINE, one a line.
ASK = {
    "bash": """\
source completion
read -ra COMP_WORDS <<<"$LINE"
[[ $LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_shtab_pgwatch_sessions
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "fish": 'source completion; complete --do-complete "$LINE" | cut -f 1',
    # zsh completes only in its line editor, which needs a terminal: zpty makes one. `compadd` prints its matches there.
    "zsh": """\
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'source ./zshrc'
while zpty -r shell line && [[ $line != ready* ]]; do :; done
zpty -w shell "$LINE"$'\t'
while zpty -r shell line && [[ $line != *done* ]]; do [[ $line == *offered* ]] && print -r -- "${line##*offered }"; done
""",
}
ZSHRC = """\
PROMPT= fpath=($PWD/functions $fpath)
autoload -Uz compinit && compinit -D -u
bindkey '^M' undefined && bindkey '^J' undefined && bindkey '^I' complete-word
print-done() { print done }
comppostfuncs=(print-done exit)
compadd() {
    [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]] && { builtin compadd "$@"; return }
    local -a hits
    builtin compadd -A hits "$@"
    (($#hits)) && print -l "offered "$^hits
    builtin compadd "$@"
}
print ready
"""


@pytest.fixture(params=ASK)
def offered(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], set[str]]:
    """Return a function that returns what a shell offers for a command line, in a folder with a file and a folder."""
    shell = str(request.param)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: apt install {shell}")
    script = finished("completion", shell)
    assert (script.returncode, script.stderr) == (0, "")
    (tmp_path / "functions").mkdir()
    for file in (tmp_path / "completion", tmp_path / "functions/_pgwatch-sessions"):
        file.write_text(script.stdout)
    (tmp_path / "zshrc").write_text(ZSHRC)
    (tmp_path / "night.jsonl").touch()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def offers(line: str) -> set[str]:
        env = {"PATH": path, "LINE": line, "HOME": str(tmp_path), "TERM": "dumb", "LANG": "C.UTF-8", "COLUMNS": "200"}
        ended = subprocess.run(
            [shell, "-c", ASK[shell]], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30, check=True
        )
        assert ended.stderr == ""
        return {each.strip().rstrip("/") for each in ended.stdout.splitlines()}

    return offers


def test_a_shell_completes_commands_options_choices_and_files(offered: Callable[[str], set[str]]) -> None:
    """Files are offered where the placeholder is FILE or PATH, and only folders where it is DIR."""
    commands = {command.name for command in COMMANDS}
    assert commands <= offered("pgwatch-sessions ")
    assert offered("pgwatch-sessions rep") & commands == {"replay"}
    options = offered("pgwatch-sessions check --f")
    assert {"--for", "--format", "--fail-on"} <= options
    assert "--force" not in options
    assert {"notice", "warning", "critical"} <= offered("pgwatch-sessions check --fail-on ")
    assert {"redacted", "off"} <= offered("pgwatch-sessions check --statements ")
    assert {"rules", "dashboards"} <= offered("pgwatch-sessions assets ")
    assert "night.jsonl" in offered("pgwatch-sessions replay ni")
    assert "night.jsonl" in offered("pgwatch-sessions run --password-file ni")
    folders = offered("pgwatch-sessions run --secrets-dir ")
    assert "functions" in folders
    assert "night.jsonl" not in folders


def test_an_unknown_shell_is_wrong_usage() -> None:
    """The error lists the shells."""
    ended = finished("completion", "tcsh")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "bash" in ended.stderr
