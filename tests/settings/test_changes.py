"""What differs between two configurations, and whether the files that they come from have changed."""

from pathlib import Path

import pytest

from pgwatch_sessions.settings.changes import Changes, changes_between, in_force
from pgwatch_sessions.settings.loading import stamps
from pgwatch_sessions.settings.model import Settings
from tests.support.given_settings import SECRET, loaded, written

ORDERS = {"name": "orders", "dsn": f"postgresql://watcher:{SECRET}@db/postgres"}
BILLING = {"name": "billing", "dsn": "postgresql://watcher@db/billing"}


def settings_of(folder: Path, *servers: dict[str, str], **options: object) -> Settings:
    """Load a file with these servers, and these options."""
    text = "servers:" + "".join(f"\n- name: {server['name']}\n  dsn: {server['dsn']}" for server in servers)
    return loaded({"config": written(folder / "config.yaml", text), **options})


def test_servers_are_known_by_their_names(tmp_path: Path) -> None:
    """A server with a changed DSN is the same, one with a changed name is another, and the order does not matter."""
    both = settings_of(tmp_path, ORDERS, BILLING)
    assert changes_between(both, settings_of(tmp_path, BILLING, ORDERS)) == Changes()
    assert changes_between(both, settings_of(tmp_path, BILLING)) == Changes(removed=("orders",))
    moved = settings_of(tmp_path, {**ORDERS, "dsn": "postgresql://elsewhere"}, BILLING)
    assert changes_between(both, moved) == Changes()
    renamed = settings_of(tmp_path, {**ORDERS, "name": "shop"}, BILLING)
    assert changes_between(both, renamed) == Changes(added=("shop",), removed=("orders",))


def test_settings_are_named_without_their_values(tmp_path: Path) -> None:
    """Those that are used at the start only keep the value that they have."""
    running = settings_of(tmp_path, ORDERS, listen="127.0.0.1:1")
    after = settings_of(tmp_path, ORDERS, listen="127.0.0.1:2", hold_limit="2m", tools="psql")
    changes = changes_between(running, after)
    assert changes == Changes(settings=("hold_limit", "tools"), restart_to_change=("listen",))
    used = in_force(running, after)
    assert (str(used.listen), used.hold_limit, used.tools) == ("127.0.0.1:1", 120, ("psql",))
    assert changes_between(used, after).restart_to_change == ("listen",), "as long as it is not restarted"


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name != "servers"])
def test_every_setting_is_compared(tmp_path: Path, name: str) -> None:
    """Each is taken in or named as one that needs a restart."""
    running = settings_of(tmp_path, ORDERS)
    changes = changes_between(running, running.model_copy(update={name: "another value"}))
    assert changes.settings + changes.restart_to_change == (name,)


def test_the_files_that_settings_come_from(tmp_path: Path) -> None:
    """The file itself, also behind a link; each secret in the directory; and files that variables name."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    for folder in ("first", "second"):
        written(tmp_path / folder / "config.yaml", "interval: 10s\n")
    (tmp_path / "current").symlink_to("first")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    dsn = written(tmp_path / "dsn", "postgresql://db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGWATCH_SESSIONS_CONFIG", str(tmp_path / "current" / "config.yaml"))
        patch.setenv("PGWATCH_SESSIONS_DSN_FILE", dsn)
        patch.setenv("PGWATCH_SESSIONS_PASSWORD_FILE", written(tmp_path / "password", "read at each connect"))
        seen = [stamps({"secrets_dir": str(secrets)})]
        assert set(seen[0]) == {tmp_path / "current" / "config.yaml", secrets, tmp_path / "dsn"}

        def changed() -> bool:
            seen.append(stamps({"secrets_dir": str(secrets)}))
            return seen[-1] != seen[-2]

        assert not changed()
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").rename(tmp_path / "current")
        assert changed()
        secret = written(secrets / "pgwatch_sessions_name", "a")
        assert changed()
        written(Path(secret), "another")
        assert changed()
        Path(dsn).unlink()
        assert changed()
        assert not changed()
