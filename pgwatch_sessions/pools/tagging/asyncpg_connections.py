"""Tags the statements of asyncpg's connections.

asyncpg sends BEGIN, COMMIT and the pool's reset through the same methods; those stay untagged. A query logger of
asyncpg cannot change a statement, so a subclass of its connection does.
"""

from functools import cache
from typing import Any, ClassVar

from pgwatch_sessions.pools.tagging.tagger import PreparedCache, StatementTagger

try:
    import asyncpg
except ImportError as error:
    raise ImportError("tagged_connection needs asyncpg: pip install asyncpg") from error


class TaggedConnection(asyncpg.Connection):
    """A connection that tags its statements. `tagged_connection` makes the class for an application."""

    tagger: ClassVar[StatementTagger]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._borrow = self.tagger.borrow()
        size = getattr(self._config, "statement_cache_size", 100)  # type: ignore[attr-defined]  # the stubs leave it out
        setting = f"statement_cache_size: create_pool(…, statement_cache_size={5 * size})"
        self.tagger.cache = PreparedCache(size=size, setting=setting)

    def _set_proxy(self, proxy: Any) -> None:
        """Note who borrows: a pool calls this when it lends the connection, with None when it gets it back."""
        super()._set_proxy(proxy)  # type: ignore[misc]  # the stubs leave it out
        if proxy is not None:
            self._borrow = self.tagger.borrow()

    def _tagged(self, query: str) -> str:
        return self.tagger.tagged(query, self._borrow)

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """As asyncpg does, with a tag."""
        return await super().execute(self._tagged(query), *args, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> None:
        """As asyncpg does, with a tag."""
        await super().executemany(self._tagged(command), args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        """As asyncpg does, with a tag."""
        return await super().fetch(self._tagged(query), *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        """As asyncpg does, with a tag."""
        return await super().fetchval(self._tagged(query), *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        """As asyncpg does, with a tag."""
        return await super().fetchrow(self._tagged(query), *args, **options)

    async def fetchmany(self, query: str, args: Any, **options: Any) -> Any:
        """As asyncpg does, with a tag."""
        return await super().fetchmany(self._tagged(query), args, **options)

    async def prepare(self, query: str, **options: Any) -> Any:
        """As asyncpg does, with a tag."""
        return await super().prepare(self._tagged(query), **options)

    def cursor(self, query: str, *args: Any, **options: Any) -> Any:
        """As asyncpg does, with a tag."""
        return super().cursor(self._tagged(query), *args, **options)


@cache
def tagged_connection(*, application: str, sample_every: int = 1) -> type[TaggedConnection]:
    """Return the class for `create_pool(…, connection_class=…)` or `connect(…, connection_class=…)`.

    It does not set application_name: pass `server_settings={"application_name": …}` as well. `sample_every=10` tags
    every tenth borrow of each route only. `PGWATCH_SESSIONS_TAGS=off` leaves all statements as they are.
    """
    tagger = StatementTagger(application, sample_every=sample_every)
    return type("TaggedConnection", (TaggedConnection,), {"tagger": tagger})
