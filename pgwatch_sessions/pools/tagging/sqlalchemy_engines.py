"""Tags the statements of SQLAlchemy engines, and names the application of their sessions.

`before_cursor_execute` would be called for every statement with the connection, but costs 6 µs; the hooks of the
dialect cost 1 µs. Not tagged are BEGIN, COMMIT and ROLLBACK, and FETCH of a server-side cursor, which drivers send.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from pgwatch_sessions.pools.tagging.tagger import Borrow, PreparedCache, StatementTagger

try:
    from sqlalchemy import Dialect, Engine, event
    from sqlalchemy.exc import InvalidRequestError
    from sqlalchemy.ext.asyncio import AsyncEngine
except ImportError as error:
    raise ImportError("tag_statements needs SQLAlchemy: pip install 'pgwatch-sessions[sqlalchemy]'") from error

_log = logging.getLogger("pgwatch_sessions.pools")
_KEY = "pgwatch_sessions.borrow"

#: Defaults of the drivers that prepare statements by themselves, and their settings.
_CACHES = {
    "asyncpg": ("prepared_statement_cache_size", 100),
    "psycopg": ("prepared_max", 100),
    "psycopg_async": ("prepared_max", 100),
}
#: Drivers, besides asyncpg, that take application_name as a parameter of a connect.
_NAMED_DRIVERS = frozenset({"psycopg", "psycopg_async", "psycopg2", "psycopg2cffi", "pg8000"})
_CONNECT_ARGUMENT = "prepared_statement_cache_size: create_async_engine(…, connect_args={'%s': %d})"
_CONNECTION_ATTRIBUTE = "prepared_max of the connection in a connect event: connection.prepared_max = %d"


class EngineTags:
    """What tags the statements of one engine."""

    def __init__(self, tagger: StatementTagger, listeners: Mapping[str, Callable[..., Any]], engine: Engine) -> None:
        self._tagger = tagger
        self._listeners = listeners
        self._engine = engine

    @property
    def application(self) -> str:
        """The name of the application in the tags."""
        return self._tagger.application

    @property
    def texts(self) -> int:
        """The number of different texts so far, which drivers may keep prepared; it is counted up to 10,000."""
        return self._tagger.texts

    def close(self) -> None:
        """Tag no more. Connections that are open keep their application_name."""
        self._tagger.close()
        _tagged.pop(self._engine.dialect, None)
        for name, listener in self._listeners.items():
            with suppress(InvalidRequestError):  # it was removed already
                event.remove(self._engine, name, listener)


#: By the dialect, which an engine shares with those that `execution_options()` derives from it.
_tagged: WeakKeyDictionary[Dialect, EngineTags] = WeakKeyDictionary()


def tag_statements(engine: Engine | AsyncEngine, *, application: str, sample_every: int = 1) -> EngineTags:
    """Tag every statement with application, route or job, and the line that borrowed the connection.

    The connections get the application's name as application_name, unless the engine sets one. `sample_every=10` tags
    every tenth borrow of each route only, which bounds the number of texts. Tagging an engine again changes nothing.
    `PGWATCH_SESSIONS_TAGS=off` in the environment leaves all statements as they are.
    """
    sync_engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    known = _tagged.get(sync_engine.dialect)
    if known is not None:
        if known.application != application:
            _log.warning(
                "the engine is tagged as %s already, so it is not tagged as %s", known.application, application
            )
        return known
    tagger = StatementTagger(application, sample_every=sample_every, own_pool=_own_code(type(sync_engine.pool)))
    listeners: dict[str, Callable[..., Any]] = {}
    if sync_engine.dialect.name == "postgresql":  # a suite of tests may run on another database
        listeners["do_connect"] = _naming(tagger)
        if tagger.is_on:
            listeners |= _tagging(tagger)
    for name, listener in listeners.items():
        event.listen(sync_engine, name, listener)
    tags = EngineTags(tagger, listeners, sync_engine)
    _tagged[sync_engine.dialect] = tags
    return tags


def _own_code(pool_class: type) -> frozenset[CodeType]:
    """Return the code of the methods that the application has added to a class of SQLAlchemy's."""
    return frozenset(
        method.__code__
        for each in pool_class.__mro__
        if not each.__module__.startswith("sqlalchemy.")
        for method in vars(each).values()
        if isinstance(method, FunctionType)
    )


def _naming(tagger: StatementTagger) -> Callable[..., None]:
    """Return a listener that sets application_name, and notes how many prepared statements the driver keeps."""

    def do_connect(dialect: Any, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
        driver = str(dialect.driver)
        if driver == "asyncpg":
            settings = parameters.setdefault("server_settings", {})
            if "application_name" not in settings:
                parameters["server_settings"] = {**settings, "application_name": tagger.application}
        elif driver in _NAMED_DRIVERS and "application_name" not in str(parameters.get("options", "")):
            parameters.setdefault("application_name", tagger.application)
        name, size = _CACHES.get(driver, ("", 0))
        if name:
            size = int(parameters.get(name, size))
            text = _CONNECT_ARGUMENT % (name, 5 * size) if driver == "asyncpg" else _CONNECTION_ATTRIBUTE % (5 * size)
            keeps = size if driver == "asyncpg" or parameters.get("prepare_threshold", 5) is not None else 0
            tagger.cache = PreparedCache(size=keeps, setting=text)

    return do_connect


def _tagging(tagger: StatementTagger) -> Mapping[str, Callable[..., Any]]:
    """Return the listeners that note who borrows a connection, and tag what is executed on it."""

    def checkout(_connection: object, record: Any, _proxy: object) -> None:
        record.info[_KEY] = tagger.borrow()

    def borrow_of(context: Any) -> Borrow | None:
        try:
            borrow: Borrow | None = context.root_connection.info.get(_KEY)
        except Exception:  # noqa: BLE001  # while SQLAlchemy asks a new server for its version, there is no record
            return None
        return borrow

    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        context.dialect.do_execute(cursor, tagger.tagged(statement, borrow_of(context)), parameters, context)
        return True

    def do_executemany(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        context.dialect.do_executemany(cursor, tagger.tagged(statement, borrow_of(context)), parameters, context)
        return True

    def do_execute_no_params(cursor: Any, statement: str, context: Any) -> bool:
        context.dialect.do_execute_no_params(cursor, tagger.tagged(statement, borrow_of(context)), context)
        return True

    return {
        "checkout": checkout,
        "do_execute": do_execute,
        "do_executemany": do_executemany,
        "do_execute_no_params": do_execute_no_params,
    }
