"""Notes who takes connections from the pools of SQLAlchemy, of every engine, whatever its driver."""

import functools
import weakref
from collections.abc import Hashable
from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import Pool

from pgwatch_sessions.pools.sites import capture
from pgwatch_sessions.pools.testing.borrows import Borrows, Owner
from pgwatch_sessions.pools.testing.drivers import opened_key

_KIND = "SQLAlchemy connection, taken"


def watch_pools(borrows: Borrows) -> None:
    """Note each checkout and checkin from now on. Listeners of the class reach the engines that already exist."""
    fairies: dict[Hashable, weakref.ref[Any]] = {}

    def connected(_connection: object, record: Any) -> None:
        # The pool has it now, also if a `creator` function of the application has opened it.
        borrows.returned(opened_key(record.driver_connection))

    def taken(_connection: object, record: Any, fairy: Any) -> None:
        reference = weakref.ref(fairy)
        fairies[_key(record)] = reference
        borrows.took(
            _key(record),
            kind=_KIND,
            place=capture(),
            connection=record.driver_connection,
            is_out=lambda: _is_out(reference()),
        )

    def returned(_connection: object, record: Any) -> None:
        reference = fairies.pop(_key(record), None)
        if reference is not None and reference() is None:
            borrows.forgotten(_key(record))
        else:
            borrows.returned(_key(record))

    def detached(connection: object, record: Any) -> None:
        reference = fairies.pop(_key(record), None)
        if reference is not None and reference() is None:
            borrows.forgotten(_key(record))  # an async connection that was collected leaves its pool
        else:
            borrows.rename(_key(record), ("detached", id(connection)))

    event.listen(Pool, "connect", borrows.safely(connected))
    event.listen(Pool, "checkout", borrows.safely(taken))
    event.listen(Pool, "checkin", borrows.safely(returned))
    event.listen(Pool, "detach", borrows.safely(detached))
    _watch_sessions(borrows)


def _watch_sessions(borrows: Borrows) -> None:
    """Let a session that a fixture made own its connection, although it takes it in a test, at the first statement."""
    from sqlalchemy.orm import Session  # noqa: PLC0415  # SQLAlchemy's core can be used without

    owners: weakref.WeakKeyDictionary[Session, Owner] = weakref.WeakKeyDictionary()
    make = Session.__init__

    @borrows.safely
    def note(session: Session) -> None:
        if borrows.owner is not None:
            owners[session] = borrows.owner

    @functools.wraps(make)
    def made(self: Session, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        note(self)

    def begun(session: Session, _transaction: object, connection: Any) -> None:
        owner = owners.get(session)
        fairy = connection.connection
        if owner is not None and fairy.is_valid and not fairy.is_detached:
            borrows.belongs_to(_key(fairy._connection_record), owner)  # noqa: SLF001  it has no public name

    Session.__init__ = made  # type: ignore[method-assign]  # it is wrapped here
    event.listen(Session, "after_begin", borrows.safely(begun))


def _key(record: object) -> Hashable:
    return "sqlalchemy", id(record)


def _is_out(fairy: Any) -> bool:
    return fairy is not None and fairy.is_valid
