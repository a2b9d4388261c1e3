"""What can be set, how it is read, and how it is shown."""

from pgwatch_sessions.settings.dsn import masked_dsn
from pgwatch_sessions.settings.errors import SettingError, SettingsError
from pgwatch_sessions.settings.loading import Described, describe, effective, load
from pgwatch_sessions.settings.model import Address, Server, Settings
from pgwatch_sessions.settings.secret_files import read_secret

__all__ = [
    "Address",
    "Described",
    "Server",
    "SettingError",
    "Settings",
    "SettingsError",
    "describe",
    "effective",
    "load",
    "masked_dsn",
    "read_secret",
]
