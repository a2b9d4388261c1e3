"""Settings that are loaded from what a test gives, and from nothing else."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from pgwatch_sessions.settings.errors import SettingsError
from pgwatch_sessions.settings.loading import load
from pgwatch_sessions.settings.model import Settings
from tests.support.programs import OTHER_PROGRAMS

SECRET = "hunter2"


def written(path: Path, text: str) -> str:
    """Write a file and return its path."""
    path.write_text(text, encoding="utf-8")
    return str(path)


def loaded(options: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Load the settings from these options and this environment, without other variables of ours or of libpq."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PG") or name in OTHER_PROGRAMS]:
            patch.delenv(name)
        for name, value in (environ or {}).items():
            patch.setenv(name, value)
        return load(options)


def errors_of(options: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the errors as a user reads them. None of them may show the secret, nor may a traceback."""
    with pytest.raises(SettingsError) as raised:
        loaded(options, environ)
    assert SECRET not in f"{raised.value!s} {raised.value!r} {raised.getrepr(showlocals=False, chain=True)}"
    return [str(error) for error in raised.value.errors]


def dsn_of(settings: Settings) -> str | None:
    """Return the DSN of the only server."""
    (server,) = settings.servers
    return server.dsn.get_secret_value() if server.dsn else None
