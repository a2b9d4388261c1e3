"""What differs between two configurations, and which of it takes effect only after a restart."""

from dataclasses import dataclass

from pgwatch_sessions.settings.model import Settings

#: What is used once, at the start.
_AT_START = ("listen", "metrics_listen", "allowed_hosts", "web_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The difference, by names only: values may be secrets."""

    #: Servers.
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    #: Settings that have changed, apart from those of servers.
    settings: tuple[str, ...] = ()
    #: Settings that have changed but keep their value until a restart.
    restart_to_change: tuple[str, ...] = ()


def changes_between(running: Settings, loaded: Settings) -> Changes:
    """Return what changes if `loaded` takes the place of `running`. A server is known by its name."""
    before = [server.name for server in running.servers]
    after = [server.name for server in loaded.servers]
    different = tuple(
        name for name in Settings.model_fields if name != "servers" and getattr(running, name) != getattr(loaded, name)
    )
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        settings=tuple(name for name in different if name not in _AT_START),
        restart_to_change=tuple(name for name in different if name in _AT_START),
    )


def in_force(running: Settings, loaded: Settings) -> Settings:
    """Return the loaded settings, with those of `running` that only a restart changes."""
    return loaded.model_copy(update={name: getattr(running, name) for name in _AT_START})
