"""What the README says about one's own server, done word by word."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pgwatch_sessions.demo.kept import kept
from tests.conftest import OwnPostgresFactory
from tests.support.ports import free_port
from tests.support.programs import environment
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent
_SECTION = re.compile(r"^## Run it against your own server\n(.*?)^## ", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def commands() -> list[list[str]]:
    """Return the commands of the section, step by step."""
    found = _SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found
    return [re.findall(r"^\s*\$ (.+)$", block, re.MULTILINE) for block in _BLOCK.findall(found[1])]


def done(script: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Do in a shell, at the project's root, what a reader types."""
    return subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_readme_leads_to_metrics_of_ones_own_server(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """The role is made, a check finds nothing and sees all, and the daemon answers with metrics."""
    server = own_postgres()
    psql = server.server.cluster.bin_folder
    if not (psql / "psql").exists():
        pytest.skip("this PostgreSQL has no psql; the embedded one has: make test")
    port = free_port()
    stand_ins = {"db.example": f"127.0.0.1 PGPORT={server.port}", "…": "any", ":9488": f":{port}"}
    (role,), poll, (run, curl) = [
        [re.sub("|".join(map(re.escape, stand_ins)), lambda match: stand_ins[match[0]], line) for line in block]
        for block in commands()
    ]
    path = f"{psql}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    reader = {**environment(), "PATH": path}

    as_superuser = {**reader, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres"}
    made = done(role, as_superuser)
    assert made.returncode == 0, made.stderr

    polled = done("\n".join(poll), reader)
    assert (polled.returncode, polled.stderr) == (0, ""), polled.stdout
    assert "hidden" not in polled.stdout

    export = poll[0]
    with kept(("bash", "-c", f"{export}\nexec {run}"), cwd=ROOT, env=reader, log=tmp_path / "log"):
        until(lambda: "pgwatch_sessions_up{" in done(curl, reader).stdout, within=30)
        assert re.search(r'pgwatch_sessions_up\{server="127\.0\.0\.1:\d+"\} 1', done(curl, reader).stdout)
