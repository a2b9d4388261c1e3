"""Faults of the login: limits, passwords, roles and privileges change while the daemon runs."""

import contextlib
from collections.abc import Iterator

import psycopg

from tests.faults.fault import Fault, Seen
from tests.faults.scene import DATABASE, END_OURS, PASSWORD, ROLE, Scene

_CREATE = f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor"


@contextlib.contextmanager
def _role_limit(scene: Scene) -> Iterator[None]:
    scene.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0", END_OURS)
    yield
    scene.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


@contextlib.contextmanager
def _database_limit(scene: Scene) -> Iterator[None]:
    scene.execute(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT 0", END_OURS)
    yield
    scene.execute(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT -1")


@contextlib.contextmanager
def _password_changed(scene: Scene) -> Iterator[None]:
    scene.execute(f"ALTER ROLE {ROLE} PASSWORD 'second'", END_OURS)
    yield
    scene.set_password("second")


@contextlib.contextmanager
def _role_dropped(scene: Scene) -> Iterator[None]:
    with psycopg.connect(scene.server.dsn(database=DATABASE)) as superuser:
        # So that we cannot log in again before the role is gone.
        superuser.execute("LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE")
        superuser.execute(END_OURS.encode())
        superuser.execute(f"DROP ROLE {ROLE}".encode())
    yield
    scene.execute(_CREATE)


@contextlib.contextmanager
def _privilege_revoked(scene: Scene) -> Iterator[None]:
    scene.execute(f"REVOKE pg_monitor FROM {ROLE}")
    yield
    scene.execute(f"GRANT pg_monitor TO {ROLE}")


_LIMIT = frozenset({"own_limit", "network"})
_LOGIN = frozenset({"authentication", "network", "timeout"})

FAULTS = (
    Fault(name="role limit reached", make=_role_limit, seen=Seen.NEVER, reasons=_LIMIT),
    Fault(name="database limit reached", make=_database_limit, seen=Seen.NEVER, reasons=_LIMIT),
    Fault(name="password changed", make=_password_changed, seen=Seen.NEVER, reasons=_LOGIN),
    Fault(name="role dropped", make=_role_dropped, seen=Seen.NEVER, reasons=_LOGIN),
    Fault(
        name="pg_monitor revoked",
        make=_privilege_revoked,
        seen=Seen.ALWAYS,
        logged=("privilege_missing",),
    ),
)
