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
_SECTION = re.compile(r"^## Run it against your own server\n(.*?)^## ", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def commands() -> list[list[str]]:
    """Return the commands of each step of the section."""
    found = _SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found
    return [re.findall(r"^\s*\$ (.+)$", block, re.MULTILINE) for block in _BLOCK.findall(found[1])]


def run_in_shell(script: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run what a reader types, in a shell at the project's root."""
    return subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_readme_leads_to_metrics_of_ones_own_server(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """The role is created, `check` sees every session and finds nothing, and the daemon serves metrics."""
    server = own_postgres()
    psql = server.server.cluster.bin_folder
    if not (psql / "psql").exists():
        pytest.skip("this PostgreSQL has no psql; the embedded one has: make test")
    port = free_port()
    replacements = {"db.example": f"127.0.0.1 PGPORT={server.port}", "…": "any", ":9488": f":{port}"}
    (role,), check, (run, curl) = [
        [re.sub("|".join(map(re.escape, replacements)), lambda match: replacements[match[0]], line) for line in block]
        for block in commands()
    ]
    path = f"{psql}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    reader = {**environment(), "PATH": path}

    as_superuser = {**reader, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres"}
    created = run_in_shell(role, as_superuser)
    assert created.returncode == 0, created.stderr

    checked = run_in_shell("\n".join(check), reader)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    assert "hidden" not in checked.stdout

    export = check[0]
    with child_process(("bash", "-c", f"{export}\nexec {run}"), cwd=ROOT, env=reader, log=tmp_path / "log"):
        until(lambda: "pgwatch_sessions_up{" in run_in_shell(curl, reader).stdout, within=30)
        assert re.search(r'pgwatch_sessions_up\{server="127\.0\.0\.1:\d+"\} 1', run_in_shell(curl, reader).stdout)
