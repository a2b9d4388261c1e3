"""The tags of what the present context works for: a request, a job, or what the application says itself.

A context variable holds a function that returns the tags, because a route is known only after routing. Threads of
`asyncio.to_thread`, tasks, background tasks and streamed responses inherit it; `run_in_executor` does not.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token

from pgwatch_sessions.pools.ledger import TagSource, current_tags


def tags_now() -> Mapping[str, str]:
    """Return the tags of the present context."""
    source = current_tags.get()
    return {} if source is None else source()


@contextmanager
def tags(**values: str) -> Iterator[None]:
    """Tag every statement inside with route, controller or job.

    For example a command: `with tags(controller="import"): …`.
    """
    outer = current_tags.get()
    token = begin(lambda: values if outer is None else {**outer(), **values})
    try:
        yield
    finally:
        end(token)


@contextmanager
def job(name: str) -> Iterator[None]:
    """Tag every statement inside with the name of a job, for example in APScheduler or arq."""
    with tags(job=name):
        yield


def begin(source: TagSource) -> Token[TagSource | None]:
    """Make this the source of tags of the present context. Return what ends it."""
    return current_tags.set(source)


def end(token: Token[TagSource | None]) -> None:
    """Return to the source before. If the present context is another one, it never had the source."""
    try:
        current_tags.reset(token)
    except ValueError:
        current_tags.set(None)
