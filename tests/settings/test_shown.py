import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgwatch_sessions.settings.listing import describe
from pgwatch_sessions.settings.loading import to_yaml
from pgwatch_sessions.settings.model import Settings
from tests.support.given_settings import SECRET, loaded, written

EXAMPLE = Path(__file__).parents[2] / "config" / "pgwatch-sessions.example.yaml"


@pytest.mark.promise("Passwords stay secret.")
def test_no_form_of_the_settings_shows_a_secret(tmp_path: Path) -> None:
    """Neither repr nor dump nor YAML shows a password."""
    dsn = f"postgresql://u:{SECRET}@db/x?sslpassword={SECRET}"
    settings = loaded({"dsn": dsn, "password_file": written(tmp_path / "password", SECRET)})
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {to_yaml(settings)}"
    assert SECRET not in shown
    assert "postgresql://u:***@db/x?sslpassword=***" in to_yaml(settings)


@pytest.mark.promise("Passwords stay secret.")
def test_the_library_logs_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """pydantic-settings has a debug mode that logs all values; an environment variable switches it on."""
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    with caplog.at_level(logging.DEBUG):
        loaded({"config": written(tmp_path / "config.yaml", f"dsn: postgresql://u:{SECRET}@db/x")})
    assert SECRET not in caplog.text


def test_the_printed_configuration_loads_again(tmp_path: Path) -> None:
    """What `config` prints is a configuration file with the same settings."""
    password = written(tmp_path / "password", SECRET)
    text = f"""
servers:
  - {{dsn: "postgresql://u@a,b/x?sslmode=require", password_file: {password}}}
  - {{name: "yes"}}
listen: ":0"
interval: 1.5
horizon: 100m
statements: off
hold_limits: [{{application: "etl-*", limit: 30m}}, {{site: "x: y # z", limit: 1m}}]
record_dir: {tmp_path}
record_max_bytes: 1048577
"""
    settings = loaded({"config": written(tmp_path / "config.yaml", text)}, {"PGWATCH_SESSIONS_MAX_CLIENTS": "7"})
    assert loaded({"config": written(tmp_path / "printed.yaml", to_yaml(settings))}) == settings
    assert "interval: 1500ms" in to_yaml(settings)


def test_the_example_has_every_setting_with_its_default() -> None:
    """The example file is complete, loads, and shows the defaults."""
    text = EXAMPLE.read_text(encoding="utf-8")
    example: dict[str, Any] = yaml.safe_load(text)
    assert set(example) == set(Settings.model_fields)
    for setting in describe():
        assert f"\n{setting.name}: " in text or f"\n# {setting.name}: " in text
        if setting.default is not None:
            assert str(example[setting.name]) == setting.default
    assert loaded({"config": str(EXAMPLE)}).model_dump(exclude={"servers"}) == loaded().model_dump(exclude={"servers"})


def test_every_setting_is_described() -> None:
    """Each has a name, an option, a variable, a placeholder for its value and a text."""
    settings = {setting.name: setting for setting in describe()}
    assert list(settings)[:4] == ["name", "dsn", "password_file", "allow_cleartext_password"]
    assert "servers" not in settings  # it has many values, so it is set in the file only
    assert all(setting.description.endswith(".") for setting in settings.values())
    hold_limit = settings["hold_limit"]
    assert (hold_limit.option, hold_limit.variable) == ("--hold-limit", "PGWATCH_SESSIONS_HOLD_LIMIT")
    assert (hold_limit.placeholder, hold_limit.default) == ("DURATION", "1m")
    assert (settings["statements"].placeholder, settings["dsn"].placeholder) == ("{redacted,off}", "URI")
    assert settings["dsn"].default is None
