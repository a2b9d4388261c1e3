import subprocess
import sys
from pathlib import Path

from tests.deploy.kubernetes.manifests import KUBERNETES, OPERATOR


def test_the_checked_in_files_are_what_the_script_writes(tmp_path: Path) -> None:
    """Run generate.py after each change to alerts, routes or dashboards. It works in any folder."""
    subprocess.run([sys.executable, KUBERNETES / "generate.py", tmp_path], cwd="/", check=True, timeout=60)
    written = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert len(written) == 3
    for name, text in written.items():
        assert (OPERATOR / name).read_text(encoding="utf-8") == text, "run python deploy/kubernetes/generate.py"
