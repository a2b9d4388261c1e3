"""Whether a server has the role that libpq's target_session_attrs asks for.

asyncpg would judge by our own session, which is read only on every server.
"""

from collections.abc import Mapping, Sequence

import asyncpg

from pgwatch_sessions.postgres.sql_files import sql

ANY = "any"
_PREFERENCES: Mapping[str, tuple[str, ...]] = {"prefer-standby": ("standby", ANY)}
#: The values that ask whether a session may write.
_ABOUT_WRITING = frozenset({"read-write", "read-only"})
#: What the hosts are that do not have the role.
_OTHERS = {"primary": "a standby", "standby": "a primary", "read-write": "read only", "read-only": "not read only"}


class NoHostWithRoleError(asyncpg.TargetServerAttributeNotMatched):
    """We logged in, but to no host that has the role."""

    def __init__(self, role: str, others: Sequence[str], problems: Sequence[str]) -> None:
        super().__init__("; ".join([*(f"{host} is {_OTHERS[role]}" for host in others), *problems]))


def preferences(role: str) -> tuple[str, ...]:
    """Return the roles to search for, one after the other."""
    return _PREFERENCES.get(role, (role,))


def is_about_writing(role: str) -> bool:
    """Return whether the role follows from default_transaction_read_only, so that ours must be set after the login."""
    return role in _ABOUT_WRITING


async def has_role(connection: asyncpg.Connection, role: str) -> bool:
    """Return whether the server has the role now. Asks it only about writing; it reports a promotion by itself."""
    if role not in _OTHERS:
        return True
    standby = getattr(connection.get_settings(), "in_hot_standby", "off") == "on"
    if not is_about_writing(role):
        return standby == (role == "standby")
    read_only = standby or await connection.fetchval(sql("role")) == "on"
    return read_only == (role == "read-only")
