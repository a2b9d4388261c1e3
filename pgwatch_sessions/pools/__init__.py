"""For applications: numbers of their connection pools, and the lines of code that borrow connections.

It is independent of the daemon, and imports only the standard library until something is instrumented.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pgwatch_sessions.pools.instrument import PoolHandle, handles, instrument, uninstrument
from pgwatch_sessions.pools.ledger import Borrowed
from pgwatch_sessions.pools.sites import Site
from pgwatch_sessions.pools.sizing import PoolSize, size_for
from pgwatch_sessions.pools.snapshot import PoolSnapshot
from pgwatch_sessions.pools.tagging.asgi import TagMiddleware
from pgwatch_sessions.pools.tagging.context import job, tags

if TYPE_CHECKING:
    from pgwatch_sessions.pools.tagging.asyncpg_connections import tagged_connection
    from pgwatch_sessions.pools.tagging.celery_tasks import install_celery_tags
    from pgwatch_sessions.pools.tagging.flask_requests import tag_flask_requests
    from pgwatch_sessions.pools.tagging.sqlalchemy_engines import tag_statements

__all__ = [
    "Borrowed",
    "PoolHandle",
    "PoolSize",
    "PoolSnapshot",
    "Site",
    "TagMiddleware",
    "handles",
    "install_celery_tags",
    "instrument",
    "job",
    "size_for",
    "tag_flask_requests",
    "tag_statements",
    "tagged_connection",
    "tags",
    "uninstrument",
]

#: Loaded when they are used, because their modules need a library: SQLAlchemy, asyncpg, Flask or Celery.
_LOADED_LATER = {
    "install_celery_tags": "celery_tasks",
    "tag_flask_requests": "flask_requests",
    "tag_statements": "sqlalchemy_engines",
    "tagged_connection": "asyncpg_connections",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.tagging.{_LOADED_LATER[name]}"), name)
