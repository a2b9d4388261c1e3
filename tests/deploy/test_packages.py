"""The wheel and the sdist: what they contain, and that an installed wheel has all its files."""

import email.message
import email.parser
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from pgwatch_sessions import __version__
from pgwatch_sessions.assets.catalogue import GROUPS, assets_of
from pgwatch_sessions.wording.runbooks import PROJECT
from tests.support.alert_rules import needs_promtool, run_tool
from tests.support.programs import environment

ROOT = Path(__file__).parents[2]
#: Files of a release, as the page on a package index links them.
TAGGED = PROJECT.replace("/main/", f"/v{__version__}/")


def build(project: Path, out: Path, *targets: str) -> list[Path]:
    """Build packages without the network; return their files."""
    command = [sys.executable, "-m", "hatchling", "build", f"-d{out}", *(f"-t{target}" for target in targets)]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=60)
    return sorted(out.iterdir(), reverse=True)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the wheel and the sdist of this checkout."""
    sdist, wheel = build(ROOT, tmp_path_factory.mktemp("dist"), "sdist", "wheel")
    return wheel, sdist


@pytest.fixture(scope="module")
def metadata(packages: tuple[Path, Path]) -> email.message.Message:
    """Return what a package index shows of the wheel."""
    wheel, _ = packages
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"pgwatch_sessions-{__version__}.dist-info/METADATA").decode()
    return email.parser.Parser().parsestr(text)


@pytest.fixture
def installed(packages: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return the Python of an environment with the wheel, and with the libraries of this environment."""
    wheel, _ = packages
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    libraries = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    shutil.unpack_archive(wheel, libraries, "zip")
    # Python reads no *.pth files in a folder that another names, so the checkout itself is not found there.
    (libraries / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


def run_installed(python: Path, *arguments: str) -> str:
    """Run the command of the installed package outside of the checkout; return its output."""
    command = [str(python), "-m", "pgwatch_sessions", *arguments]
    return subprocess.run(
        command, cwd=python.parent, env=environment(), capture_output=True, text=True, check=True, timeout=60
    ).stdout


@needs_promtool
def test_an_installed_wheel_has_rules_that_work_and_dashboards_that_load(installed: Path, tmp_path: Path) -> None:
    """Everything that `assets` writes is what the checkout has, and its rules pass their tests."""
    folder = tmp_path / "written"
    run_installed(installed, "assets", "--out", str(folder))
    shipped = {asset.path: asset.text for group in GROUPS for asset in assets_of(group)}
    written = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert written == shipped
    tested = run_tool("promtool", "test", "rules", *sorted((folder / "alerts/tests").glob("*.yml")))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for dashboard in (folder / "grafana/dashboards").glob("*.json"):
        assert json.loads(dashboard.read_text())["uid"].startswith("pgwatch-sessions-")


def test_an_installed_wheel_renders_its_runbooks_and_prints_its_sql(installed: Path) -> None:
    """The files are found in the package, not in the checkout."""
    script = (
        "import pgwatch_sessions as package; from pgwatch_sessions.web.runbooks import runbook_page; "
        "print(package.__file__); print(runbook_page('PgwatchSessionsDown').decode())"
    )
    done = subprocess.run(
        [installed, "-c", script], cwd=installed.parent, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith(str(installed.parents[1]))
    assert "<h1" in done.stdout
    assert run_installed(installed, "role-sql") == (ROOT / "deploy/sql/create_monitor_role.sql").read_text()
    assert "_shtab_pgwatch_sessions" in run_installed(installed, "completion", "bash")


def test_the_wheel_has_only_our_package(packages: tuple[Path, Path]) -> None:
    """Nothing but the package and its metadata, and no test."""
    wheel, _ = packages
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "pgwatch_sessions",
        f"pgwatch_sessions-{__version__}.dist-info",
    }
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".orig", ".swp"))] == []


def test_the_sdist_builds_the_same_wheel(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """Distributions build from the sdist."""
    wheel, sdist = packages
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [again] = build(tmp_path / f"pgwatch_sessions-{__version__}", tmp_path / "dist", "wheel")
    assert again.read_bytes() == wheel.read_bytes()


def test_the_context_of_the_image_builds_the_same_wheel(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """The image has all files that travel with the package, because its build reads them too."""
    wheel, _ = packages
    for path in re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, target)
    [again] = build(tmp_path, tmp_path / "dist", "wheel")
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


def test_the_readme_on_a_package_index_has_links_that_work_there(metadata: email.message.Message) -> None:
    """Relative links become links to the files of this release, which exist."""
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload()
    assert isinstance(text, str)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    assert [link for link in links if not link.startswith(("https://", "http://127.0.0.1", "#"))] == []
    files = {link.removeprefix(TAGGED).partition("#")[0] for link in links if link.startswith(TAGGED)}
    assert len(files) > 20
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_a_package_index_links_to_the_project(metadata: email.message.Message) -> None:
    """All links are below the project's address, and those to files lead to files that exist."""
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL", ()))
    assert urls.keys() == {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
    assert all(url.startswith(PROJECT.removesuffix("/blob/main/")) for url in urls.values())
    assert (ROOT / urls["Changelog"].removeprefix(PROJECT)).exists()
