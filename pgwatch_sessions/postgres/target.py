"""Where a server is, and how to log in."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pgwatch_sessions.postgres.hosts import Host
from pgwatch_sessions.postgres.login import LoginRules
from pgwatch_sessions.postgres.roles import ANY


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a server is, and how to log in."""

    name: str
    #: A URI; None leaves everything to libpq's environment variables.
    dsn: str | None = field(default=None, repr=False)
    #: Called at each connect, so that a changed password is found. Raises OSError when it cannot be read.
    password: Callable[[], str] | None = field(default=None, repr=False)
    #: Whether the driver finds a password in the DSN, in PGPASSWORD or in libpq's password file.
    #: It follows from the DSN, so two targets that differ in this only are the same.
    has_password: Callable[[], bool] = field(default=lambda: True, repr=False, compare=False)
    #: The hosts that the DSN or PGHOST name. Empty leaves the choice to the driver.
    hosts: tuple[Host, ...] = ()
    #: libpq's target_session_attrs.
    role: str = ANY
    #: How we may log in.
    login: LoginRules = field(default_factory=LoginRules)
