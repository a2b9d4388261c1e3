"""The release workflow: its permissions, the order of its jobs, and the check of the tag."""

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
#: This project's workflows, and the example for users.
WORKFLOWS = (*(PROJECT / ".github/workflows").glob("*.yml"), PROJECT / "deploy/ci/connection-leak-test.yml")
#: The first major version of each action that runs on Node 24. GitHub's runners no longer have Node 20.
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
#: Runs in its own container, not on Node.
PUBLISHER = "pypa/gh-action-pypi-publish"
#: Actions whose commits are not known to this project. They get no permission and no secret.
BY_TAG = {"azure/setup-kubectl"}
#: An action, its commit or tag, and the major version, which a comment behind a commit names.
_USED = re.compile(
    r"uses: (?P<action>[\w/-]+)@(?:(?P<commit>[0-9a-f]{40}) # )?v(?P<major>\d+)(?:[.\d]*)$", re.MULTILINE
)

#: The permissions of each job, and why it needs them.
PERMISSIONS = {
    "test": {"contents": "read"},
    "packages": {"contents": "read"},
    "image": {"contents": "read", "packages": "write"},  # pushes to ghcr.io
    "pypi": {"id-token": "write"},  # authenticates to PyPI
    "release": {"contents": "write"},  # creates the release
}


def required_jobs(job: str) -> set[str]:
    """Return all jobs that must pass before this one starts."""
    direct = set(JOBS[job].get("needs", ()))
    return direct.union(*(required_jobs(one) for one in direct))


def steps(job: str) -> list[dict[str, Any]]:
    """Return the steps of a job."""
    listed: list[dict[str, Any]] = JOBS[job].get("steps", [])
    return listed


def all_jobs(file: Path) -> dict[str, dict[str, Any]]:
    """Return the jobs of a workflow."""
    listed: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text())["jobs"]
    return listed


def test_only_a_version_tag_starts_a_release() -> None:
    """No branch and no pull request starts one."""
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}


def test_jobs_have_only_the_permissions_that_they_need() -> None:
    """There are no default permissions, and each job lists its own."""
    assert WORKFLOW["permissions"] == {}
    assert {name: job["permissions"] for name, job in JOBS.items()} == PERMISSIONS


@pytest.mark.parametrize("job", sorted(PERMISSIONS.keys() - {"test"}))
def test_nothing_is_published_before_the_tests_have_passed(job: str) -> None:
    """Every other job waits for the tests, and each job that publishes waits for the check of the tag."""
    assert "test" in required_jobs(job)
    assert job == "packages" or "packages" in required_jobs(job)
    assert (PROJECT / JOBS["test"]["uses"]) == CI
    assert "workflow_call" in yaml.safe_load(CI.read_text())[True]
    assert any(step.get("run") == ".ci/run" for job in all_jobs(CI).values() for step in job["steps"])
    assert any(".github/release.py" in step.get("run", "") for step in steps("packages"))


def test_packages_are_built_once() -> None:
    """PyPI and the release get the packages that were built and tested."""
    builds = [name for name in JOBS for step in steps(name) if "uv build" in step.get("run", "")]
    assert builds == ["packages"]
    for job in ("pypi", "release"):
        assert any(step.get("uses", "").startswith("actions/download-artifact@") for step in steps(job))
        assert not any(step.get("uses", "").startswith("actions/checkout@") for step in steps(job))


def test_the_image_is_for_both_architectures_and_has_provenance() -> None:
    """One push has the bill of materials, the provenance and all labels of the Dockerfile."""
    [push] = [step["with"] for step in steps("image") if step.get("with", {}).get("push")]
    assert push["platforms"] == "linux/amd64,linux/arm64"
    assert (push["sbom"], push["provenance"]) == (True, "mode=max")
    arguments = {line.partition("=")[0] for line in push["build-args"].splitlines()}
    last_stage = (PROJECT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert arguments == set(re.findall(r"^ARG (\w+)", last_stage, re.MULTILINE))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_action_is_new_enough_and_every_job_ends(file: Path) -> None:
    """Actions have a major version that still runs, checkouts keep no credentials, and jobs have a time limit."""
    text = file.read_text()
    actions = [use for use in _USED.finditer(text) if use["action"] != PUBLISHER]
    assert text.count("uses: ") - text.count("uses: ./") - text.count(f"uses: {PUBLISHER}") == len(actions)
    assert [use[0] for use in actions if int(use["major"]) < ON_NODE_24[use["action"]]] == []
    for job in all_jobs(file).values():
        if "uses" in job:  # our own workflow, which is checked separately
            continue
        assert job["timeout-minutes"] <= (80 if file.stem == "nightly" else 40)
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.promise("Only code that was reviewed is run to build a release.")
def test_actions_are_pinned_by_commit() -> None:
    """A tag of an action can be moved to other code, a commit cannot. Dependabot offers newer ones, and libraries."""
    for file in (PROJECT / ".github/workflows").glob("*.yml"):
        uses = list(_USED.finditer(file.read_text()))
        assert [use[0] for use in uses if not use["commit"] and use["action"] not in BY_TAG] == []
    updates = yaml.safe_load((PROJECT / ".github/dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "uv"}


@pytest.mark.parametrize("file", sorted((PROJECT / ".github/workflows").glob("*.yml")), ids=lambda file: file.stem)
def test_a_workflow_can_read_the_code_at_most(file: Path) -> None:
    """Whatever a job needs beyond that, it names itself."""
    assert yaml.safe_load(file.read_text())["permissions"] in ({}, {"contents": "read"})


def test_ci_installs_kubectl_before_the_tests() -> None:
    """Debian's kubectl is too old for the manifests, and .ci/run fails if tests are skipped."""
    listed = all_jobs(CI)["full"]["steps"]
    [before] = [step for step in listed[: listed.index({"run": ".ci/run"})] if "kubectl" in step.get("uses", "")]
    assert re.fullmatch(r"v1\.\d+\.\d+", before["with"]["version"])


def test_the_real_images_are_built_before_a_release() -> None:
    """CI builds the image on both architectures, and runs the Compose example with the commands of its README."""
    scripts = "\n".join(step.get("run", "") for step in all_jobs(CI)["containers"]["steps"])
    assert "docker build --tag pgwatch-sessions .\n" in scripts
    readme = (PROJECT / "deploy/compose/README.md").read_text()
    [secrets] = re.findall(r"^\$ (.*openssl.*)$", readme, re.MULTILINE)
    assert secrets in scripts
    assert "$ docker compose up --build --detach\n" in readme
    assert "docker compose up --build --detach --wait" in scripts
    loaded, pushed = (step["with"] for step in steps("image") if "build-push" in step.get("uses", ""))
    assert (loaded["platforms"], loaded["load"], loaded["target"]) == ("linux/arm64", True, pushed["target"])


def test_artifacts_are_downloaded_by_name() -> None:
    """Downloading all artifacts would fail: docker's build records are also uploaded, and are not archives."""
    uploaded = {step["with"]["name"] for step in steps("packages") if "upload-artifact" in step.get("uses", "")}
    downloaded = {
        job: [step["with"]["name"] for step in steps(job) if "download-artifact" in step.get("uses", "")]
        for job in ("pypi", "release")
    }
    assert downloaded == {"pypi": ["packages"], "release": ["packages", "notes"]}
    assert set(downloaded["release"]) == uploaded


def test_releases_run_one_after_another() -> None:
    """No release is cancelled half-way, and none moves the tag `latest` to an older version."""
    assert WORKFLOW["concurrency"] == {"group": "release", "cancel-in-progress": False}
    [meta] = [step["with"] for step in steps("image") if step.get("id") == "meta"]
    assert meta["flavor"] == "latest=false"


def test_no_untrusted_text_reaches_a_shell() -> None:
    """Scripts contain no expressions `${{ }}`; the tag is a variable."""
    assert [step["run"] for name in JOBS for step in steps(name) if "${{" in step.get("run", "")] == []


def run_tag_check(tag: str, project: Path) -> subprocess.CompletedProcess[str]:
    """Run the check of a tag in a copy of the project."""
    command = [sys.executable, str(project / ".github/release.py"), tag]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project of version 1.2.3, whose changelog has 1.2.3 and 1.2.2."""
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


def test_the_right_tag_prints_its_section_of_the_changelog(project: Path) -> None:
    """It prints nothing of other versions."""
    done = run_tag_check("v1.2.3", project)
    assert (done.returncode, done.stdout) == (0, "### Added\n\n- now\n"), done.stderr


@pytest.mark.parametrize("tag", ["v1.2.4", "1.2.3", "v1.2.3-rc1", "v1.2.2"])
def test_a_wrong_tag_is_rejected(project: Path, tag: str) -> None:
    """The message names both versions."""
    done = run_tag_check(tag, project)
    assert (done.returncode, done.stdout) == (1, "")
    assert tag in done.stderr
    assert "1.2.3" in done.stderr


def test_a_version_without_a_section_in_the_changelog_is_rejected(project: Path) -> None:
    """The section becomes the release notes."""
    (project / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")
    done = run_tag_check("v1.2.3", project)
    assert (done.returncode, done.stdout) == (1, "")
    assert "CHANGELOG.md" in done.stderr


def test_the_documentation_lists_every_file_that_contains_the_version() -> None:
    """A release changes these files only."""
    folders = ("pgwatch_sessions", "deploy", "docs", "config", "alerts", "grafana")
    paths = (path for folder in folders for path in (PROJECT / folder).rglob("*"))
    files = [path for path in paths if path.suffix in {".py", ".yaml", ".yml", ".md"}]
    version = re.compile(rf"(?<![\w.]){re.escape(__version__)}(?![\w.])")
    containing = {str(path.relative_to(PROJECT)) for path in files if version.search(path.read_text())}
    documented = (PROJECT / "docs/release.md").read_text()
    assert len(containing) == 3
    assert [path for path in containing if f"`{path}`" not in documented] == []
