"""The release workflow: what it may do, in which order, and the check of the tag."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from pgwatch_sessions import __version__

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / ".github/release.py"
# YAML 1.1 reads the key `on` as true.
WORKFLOW: dict[Any, Any] = yaml.safe_load((PROJECT / ".github/workflows/release.yml").read_text())
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]

#: Every right that a job has, and why it must.
RIGHTS = {
    "test": {"contents": "read"},
    "packages": {"contents": "read"},
    "image": {"contents": "read", "packages": "write"},  # pushes to ghcr.io
    "pypi": {"id-token": "write"},  # proves to PyPI who it is
    "release": {"contents": "write"},  # makes the release
}


def needed(job: str) -> set[str]:
    """Return all jobs that must have passed before this one starts."""
    direct = set(JOBS[job].get("needs", ()))
    return direct.union(*(needed(one) for one in direct))


def steps(job: str) -> list[dict[str, Any]]:
    """Return the steps of a job."""
    found: list[dict[str, Any]] = JOBS[job]["steps"]
    return found


def test_only_a_version_tag_starts_it() -> None:
    """No branch and no pull request releases anything."""
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}


def test_no_job_may_do_more_than_it_must() -> None:
    """Nothing is allowed by default, and each job says what it needs."""
    assert WORKFLOW["permissions"] == {}
    assert {name: job["permissions"] for name, job in JOBS.items()} == RIGHTS


@pytest.mark.parametrize("job", sorted(RIGHTS.keys() - {"test"}))
def test_nothing_is_published_before_the_tests_have_passed(job: str) -> None:
    """Every other job waits for the tests, and each that publishes for the check of the tag."""
    assert "test" in needed(job)
    assert job == "packages" or "packages" in needed(job)
    assert any(step.get("run") == ".ci/run" for step in steps("test"))
    assert any(".github/release.py" in step.get("run", "") for step in steps("packages"))


def test_packages_are_built_once() -> None:
    """What PyPI and the release get is what was built and tried."""
    builds = [name for name in JOBS for step in steps(name) if "uv build" in step.get("run", "")]
    assert builds == ["packages"]
    for job in ("pypi", "release"):
        assert any(step.get("uses", "").startswith("actions/download-artifact@") for step in steps(job))
        assert not any(step.get("uses", "").startswith("actions/checkout@") for step in steps(job))


def test_the_image_is_for_both_architectures_and_says_how_it_was_made() -> None:
    """One push, with the bill of materials, the provenance and the labels that the Dockerfile takes."""
    [push] = [step["with"] for step in steps("image") if step.get("with", {}).get("push")]
    assert push["platforms"] == "linux/amd64,linux/arm64"
    assert (push["sbom"], push["provenance"]) == (True, "mode=max")
    given = {line.partition("=")[0] for line in push["build-args"].splitlines()}
    last_stage = (PROJECT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert given == set(re.findall(r"^ARG (\w+)", last_stage, re.MULTILINE))


def test_every_action_is_pinned_and_every_job_ends() -> None:
    """Actions are named by their major version, checkouts keep no credentials, jobs have a time limit."""
    for name, job in JOBS.items():
        assert job["timeout-minutes"] <= 40
        for step in steps(name):
            action = step.get("uses", "")
            assert not action or re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+|[0-9a-f]{40})", action)
            if action.startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_nothing_that_a_stranger_names_reaches_a_shell() -> None:
    """No expression stands in a script; the tag comes as a variable."""
    assert [step["run"] for name in JOBS for step in steps(name) if "${{" in step.get("run", "")] == []


def checked(tag: str, project: Path) -> subprocess.CompletedProcess[str]:
    """Run the check of a tag in a copy of the project that has this version and this changelog."""
    command = [sys.executable, str(project / ".github/release.py"), tag]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project at 1.2.3, which its changelog knows, and 1.2.2 before it."""
    (tmp_path / ".github").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".github")
    package = tmp_path / "pgwatch_sessions"
    package.mkdir()
    (package / "__init__.py").write_text(
        (PROJECT / "pgwatch_sessions/__init__.py").read_text().replace(__version__, "1.2.3")
    )
    changelog = "# Changelog\n\n## [Unreleased]\n\n- later\n\n## [1.2.3] - 2026-01-02\n\n### Added\n\n- now\n\n"
    (tmp_path / "CHANGELOG.md").write_text(changelog + "## [1.2.2] - 2026-01-01\n\n- earlier\n")
    return tmp_path


def test_the_right_tag_gives_its_part_of_the_changelog(project: Path) -> None:
    """What is printed is what stands under the version, and nothing of other versions."""
    done = checked("v1.2.3", project)
    assert (done.returncode, done.stdout) == (0, "### Added\n\n- now\n"), done.stderr


@pytest.mark.parametrize("tag", ["v1.2.4", "1.2.3", "v1.2.3-rc1", "v1.2.2"])
def test_a_wrong_tag_is_refused(project: Path, tag: str) -> None:
    """The message names both versions."""
    done = checked(tag, project)
    assert (done.returncode, done.stdout) == (1, "")
    assert tag in done.stderr
    assert "1.2.3" in done.stderr


def test_a_version_that_the_changelog_does_not_know_is_refused(project: Path) -> None:
    """A release has notes."""
    (project / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")
    done = checked("v1.2.3", project)
    assert (done.returncode, done.stdout) == (1, "")
    assert "CHANGELOG.md" in done.stderr
