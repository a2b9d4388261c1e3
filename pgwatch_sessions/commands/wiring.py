"""Build what the parts of the program need from the settings."""

import os
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import starmap

from pgwatch_sessions.commands.command import CommandError
from pgwatch_sessions.core.statements import Statement, parse_statement
from pgwatch_sessions.discovery.discovery import found_now
from pgwatch_sessions.discovery.target_groups import SourceError
from pgwatch_sessions.pollers import Watch
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.hosts import Host
from pgwatch_sessions.postgres.login import LoginRules
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.settings.connection_parameters import has_password
from pgwatch_sessions.settings.model import ServerSettings, Settings
from pgwatch_sessions.settings.secret_files import SecretFile


def watch_of(settings: Settings, *, found: Iterable[ServerSettings] = ()) -> Watch:
    """Return the arguments of the daemon. `found` are servers beside those that are listed."""
    servers = (*settings.servers, *found)
    return Watch(
        targets=tuple(_target(server) for server in servers if not settings.shard or settings.shard.has(server.name)),
        interval=settings.interval,
        timeout=settings.timeout,
        policy=settings.policy,
        parse=parse_of(settings),
        record_dir=settings.record_dir,
        record_max_bytes=settings.record_max_bytes,
        state_dir=settings.state_dir,
        statements=settings.statements,
    )


def parse_of(settings: Settings) -> Callable[[str | None], Statement]:
    """Return the function that parses statements, which drops their text and tags if `statements` is off."""
    return parse_statement if settings.statements == "redacted" else _parse_without_text


def connections_of(settings: Settings) -> Mapping[str, HeldConnection]:
    """Return a connection to each server, listed or found, by the server's name. None is opened yet."""
    return {
        server.name: HeldConnection(
            _target(server),
            timeout=settings.timeout,
            parse=parse_of(settings),
            jitter=lambda limit: random.uniform(0, limit),
        )
        for server in _servers(settings)
    }


def targets_of(settings: Settings) -> tuple[Target, ...]:
    """Return where each server is, listed or found, and how to log in."""
    return tuple(map(_target, _servers(settings)))


def _servers(settings: Settings) -> tuple[ServerSettings, ...]:
    try:
        return (*settings.servers, *found_now(settings.servers_from, listed=settings.servers))
    except SourceError as error:
        raise CommandError(str(error)) from None


def _target(server: ServerSettings) -> Target:
    file, route = server.password_file, server.route
    return Target(
        name=server.name,
        dsn=route.dsn,
        password=SecretFile(file) if file else None,
        has_password=lambda: has_password(route.dsn, os.environ),
        hosts=tuple(starmap(Host, route.hosts)),
        role=route.role,
        login=LoginRules(methods=route.logins, cleartext=server.allow_cleartext_password == "yes"),  # noqa: S105  # no password
    )


def _parse_without_text(sql: str | None) -> Statement:
    return replace(parse_statement(sql), text="", tags=(), summary="(statement)")
