"""Comments on statements that name the application, the route or job, and the line that borrowed the connection.

Each name is loaded when it is used, because its module needs a library: SQLAlchemy, asyncpg, Flask or Celery. For
Django see `django_requests`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pgwatch_sessions.pools.tagging.asgi import TagMiddleware
from pgwatch_sessions.pools.tagging.context import job, tags

if TYPE_CHECKING:
    from pgwatch_sessions.pools.tagging.asyncpg_connections import tagged_connection
    from pgwatch_sessions.pools.tagging.celery_tasks import install_celery_tags
    from pgwatch_sessions.pools.tagging.flask_requests import tag_flask_requests
    from pgwatch_sessions.pools.tagging.sqlalchemy_engines import tag_statements

__all__ = [
    "TagMiddleware",
    "install_celery_tags",
    "job",
    "tag_flask_requests",
    "tag_statements",
    "tagged_connection",
    "tags",
]

_MODULES = {
    "install_celery_tags": "celery_tasks",
    "tag_flask_requests": "flask_requests",
    "tag_statements": "sqlalchemy_engines",
    "tagged_connection": "asyncpg_connections",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
