"""The release workflow: what it may do, in which order, and the check of the tag."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgwatch_sessions import __version__

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / ".github/release.py"
# YAML 1.1 reads the key `on` as true.
WORKFLOW: dict[Any, Any] = yaml.safe_load((PROJECT / ".github/workflows/release.yml").read_text())
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
CI = PROJECT / ".github/workflows/ci.yml"
#: Those of this project, and the one that others copy.
WORKFLOWS = (*(PROJECT / ".github/workflows").glob("*.yml"), PROJECT / "deploy/ci/connection-leak-test.yml")
#: The first major version of each action that runs on Node 24, which GitHub's machines have; Node 20 they have not.
ON_NODE_24 = {
    "actions/checkout": 5,
    "actions/download-artifact": 7,
    "actions/setup-python": 6,
    "actions/upload-artifact": 6,
    "azure/setup-kubectl": 5,
    "docker/build-push-action": 7,
    "docker/login-action": 4,
    "docker/metadata-action": 6,
    "docker/setup-buildx-action": 4,
    "docker/setup-qemu-action": 4,
}
#: Runs in a container of its own, and its documentation names it by this branch.
PUBLISHER = "pypa/gh-action-pypi-publish@release/v1"

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
    found: list[dict[str, Any]] = JOBS[job].get("steps", [])
    return found


def all_jobs(file: Path) -> dict[str, dict[str, Any]]:
    """Return the jobs of a workflow."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["jobs"]
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
    assert (PROJECT / JOBS["test"]["uses"]) == CI
    assert "workflow_call" in yaml.safe_load(CI.read_text())[True]
    assert any(step.get("run") == ".ci/run" for job in all_jobs(CI).values() for step in job["steps"])
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


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_action_is_pinned_and_every_job_ends(file: Path) -> None:
    """Actions are named by a major version that still runs, checkouts keep no credentials, jobs have a time limit."""
    for job in all_jobs(file).values():
        if "uses" in job:  # a workflow of ours, which is tried by itself
            continue
        assert job["timeout-minutes"] <= 40
        for step in job["steps"]:
            action, _, version = step.get("uses", "").partition("@")
            if action and step["uses"] != PUBLISHER:
                assert int(version.removeprefix("v")) >= ON_NODE_24[action], step["uses"]
            if action == "actions/checkout":
                assert step["with"]["persist-credentials"] is False


def test_all_tests_run_where_a_kubectl_is() -> None:
    """Debian's is too old for the manifests, and a test that is only skipped fails .ci/run."""
    listed = all_jobs(CI)["full"]["steps"]
    [before] = [step for step in listed[: listed.index({"run": ".ci/run"})] if "kubectl" in step.get("uses", "")]
    assert re.fullmatch(r"v1\.\d+\.\d+", before["with"]["version"])


def test_the_real_images_are_tried_before_a_release() -> None:
    """The base of the Dockerfile on both architectures, and the Compose example by the command of its README."""
    ours = "\n".join(step.get("run", "") for step in all_jobs(CI)["containers"]["steps"])
    assert "docker build --tag pgwatch-sessions .\n" in ours
    readme = (PROJECT / "deploy/compose/README.md").read_text()
    [secrets] = re.findall(r"^\$ (.*openssl.*)$", readme, re.MULTILINE)
    assert secrets in ours
    assert "$ docker compose up --build --detach\n" in readme
    assert "docker compose up --build --detach --wait" in ours
    tried, pushed = (step["with"] for step in steps("image") if "build-push" in step.get("uses", ""))
    assert (tried["platforms"], tried["load"], tried["target"]) == ("linux/arm64", True, pushed["target"])


def test_what_is_downloaded_was_uploaded() -> None:
    """By its name: docker's build records, which are uploaded too, are no archives, and fail whoever takes all."""
    uploaded = {step["with"]["name"] for step in steps("packages") if "upload-artifact" in step.get("uses", "")}
    taken = {
        job: [step["with"]["name"] for step in steps(job) if "download-artifact" in step.get("uses", "")]
        for job in ("pypi", "release")
    }
    assert taken == {"pypi": ["packages"], "release": ["packages", "notes"]}
    assert set(taken["release"]) == uploaded


def test_releases_are_made_one_after_another() -> None:
    """None is broken off half-way, and none moves a tag that people follow back to an older version."""
    assert WORKFLOW["concurrency"] == {"group": "release", "cancel-in-progress": False}
    [meta] = [step["with"] for step in steps("image") if step.get("id") == "meta"]
    assert meta["flavor"] == "latest=false"


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


def test_the_documentation_names_every_file_that_says_the_version() -> None:
    """A release changes those, and no other."""
    folders = ("pgwatch_sessions", "deploy", "docs", "config", "alerts", "grafana")
    paths = (path for folder in folders for path in (PROJECT / folder).rglob("*"))
    files = [path for path in paths if path.suffix in {".py", ".yaml", ".yml", ".md"}]
    version = re.compile(rf"(?<![\w.]){re.escape(__version__)}(?![\w.])")
    saying = {str(path.relative_to(PROJECT)) for path in files if version.search(path.read_text())}
    documented = (PROJECT / "docs/release.md").read_text()
    assert len(saying) == 3
    assert [path for path in saying if f"`{path}`" not in documented] == []
