"""Follows the README's section on your own server, word by word."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pgwatch_sessions.demo.child_process import child_process
from tests.support.ports import free_port
from tests.support.programs import environment
from tests.support.servers import OwnPostgresFactory
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent
_SECTION = re.compile(r"^## Watch your own server\n(.*?)^## ", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
_PASSWORD = "correct horse"


def commands() -> list[list[str]]:
    """Return the commands of each block of the section."""
    found = _SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found
    return [re.findall(r"^\$ (.+)$", block, re.MULTILINE) for block in _BLOCK.findall(found[1])]


def run_in_shell(script: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run what a reader types, in a shell at the project's root, without a terminal; the reader types the password."""
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=ROOT,
        env=env,
        input=f"{_PASSWORD}\n{_PASSWORD}\n",
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_readme_leads_to_metrics_of_ones_own_server(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """The role is made and has a password, every test of the connection passes, `check` finds nothing, `run` serves."""
    server = own_postgres(hba=["host all pgwatch_sessions all scram-sha-256"])
    psql = server.server.cluster.bin_folder
    if not (psql / "psql").exists():
        pytest.skip("this PostgreSQL has no psql; the embedded one has: make test")
    port = free_port()
    replacements = {
        "db.example": "127.0.0.1",
        "…": f"'{_PASSWORD}'",
        ":9488": f":{port}",
        ".venv/bin": str(Path(sys.executable).parent),
    }
    look, (run, curl, top), _container = [
        [re.sub("|".join(map(re.escape, replacements)), lambda match: replacements[match[0]], line) for line in block]
        for block in commands()
    ]
    reader = {**environment(), "PATH": f"{psql}:{os.environ['PATH']}", "PGPORT": str(server.port)}

    looked = run_in_shell("\n".join(look), reader)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert "hidden" not in looked.stdout

    exports = "\n".join(line for line in look if line.startswith("export"))
    with child_process(("bash", "-c", f"{exports}\nexec {run}"), cwd=ROOT, env=reader, log=tmp_path / "log"):
        until(lambda: "pgwatch_sessions_up{" in run_in_shell(curl, reader).stdout, within=30)
        assert re.search(r'pgwatch_sessions_up\{server="127\.0\.0\.1:\d+"\} 1', run_in_shell(curl, reader).stdout)
        shown = run_in_shell(f"{top} --help", reader)
        assert shown.returncode == 0, shown.stderr
