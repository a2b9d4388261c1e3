"""Files with secrets that others can read are found, whichever source of settings they are."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgwatch_sessions.settings.exposed_files import readable_by_all, secret_files
from pgwatch_sessions.settings.loading import load_with_places
from tests.support.given_settings import SECRET, written
from tests.support.programs import OTHER_PROGRAMS

DSN = f"postgresql://u:{SECRET}@db/x"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that every user can read; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def found(options: dict[str, object], environ: dict[str, str]) -> set[tuple[Path, str]]:
    """Return the files with secrets of these settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PG") or name in OTHER_PROGRAMS]:
            patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        loaded = load_with_places(options)
        return set(secret_files(loaded.settings, loaded.places, os.environ))


def test_files_with_secrets_are_known(tmp_path: Path) -> None:
    """Password files, keys, secret files, service files, and a configuration with a password in it."""
    password, key = written(tmp_path / "password", SECRET), written(tmp_path / "key.pem", SECRET)
    dsn = written(tmp_path / "dsn", DSN)
    plain = "postgresql://u@db/x"
    servers = f"servers:\n- {{name: a, dsn: '{plain}', password_file: {password}}}\n"
    with_key = f"- {{name: b, dsn: '{plain}?sslcert={key}&sslkey={key}'}}\n"
    config = written(tmp_path / "a.yaml", servers + with_key)
    assert found({"config": config}, {}) == {(Path(password), "a password"), (Path(key), "a private key")}
    config = written(tmp_path / "b.yaml", f"{servers}- {{name: c, dsn: '{DSN}'}}\n")
    assert found({"config": config}, {}) == {(Path(password), "a password"), (Path(config), "a password")}
    config = written(tmp_path / "c.yaml", f"dsn: {DSN}\n")
    assert found({"config": config, "host": "other"}, {}) == {(Path(config), "a password")}
    assert found({}, {"PGWATCH_SESSIONS_DSN_FILE": dsn}) == {(Path(dsn), "a password")}
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    file = written(secrets / "pgwatch_sessions_dsn", DSN)
    assert found({"secrets_dir": str(secrets)}, {}) == {(Path(file), "a password")}
    services = written(tmp_path / "services", f"[shop]\nhost=db\npassword={SECRET}\n")
    assert found({}, {"PGSERVICE": "shop", "PGSERVICEFILE": services}) == {(Path(services), "a password")}
    assert found({"dsn": DSN}, {}) == found({}, {"PGWATCH_SESSIONS_DSN": DSN}) == set()


def test_a_file_is_readable_by_all_if_each_folder_is(folder: Path) -> None:
    """As the system decides it."""
    below = folder / "below"
    below.mkdir()
    file = Path(written(below / "password", SECRET))
    link = folder / "link"
    link.symlink_to(file)
    for mode, of_folder, expected in ((0o644, 0o755, True), (0o640, 0o755, False), (0o604, 0o750, False)):
        file.chmod(mode)
        below.chmod(of_folder)
        assert readable_by_all(file) is readable_by_all(link) is expected
    assert not readable_by_all(folder / "missing")


def test_a_secret_on_a_read_only_mount_is_left_out(folder: Path) -> None:
    """A container's secrets are mounted so, and nobody could change their mode."""
    file = Path(written(folder / "password", SECRET))
    file.chmod(0o644)
    judge = (
        "import sys, pathlib; from pgwatch_sessions.settings.exposed_files import readable_by_all;"
        "print(readable_by_all(pathlib.Path(sys.argv[1])))"
    )
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,"$2" "$1" && exec "$3" -c "$4" "$1/password"'
    answers = []
    for how in ("rw", "ro"):
        command = ["unshare", "-rm", "sh", "-c", script, "sh", str(folder), how, sys.executable, judge]
        try:
            answers.append(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this machine lets nobody mount: {error}")
    assert answers == ["True\n", "False\n"]
