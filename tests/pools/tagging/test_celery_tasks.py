from celery import Celery

from pgwatch_sessions.pools import install_celery_tags
from pgwatch_sessions.pools.tagging.context import tags_now

app = Celery("shop", broker="memory://")


@app.task(name="shop.inner")  # type: ignore[untyped-decorator]  # Celery has no types
def inner() -> dict[str, str]:
    """Be a task that another one runs."""
    return dict(tags_now())


@app.task(name="shop.outer")  # type: ignore[untyped-decorator]  # Celery has no types
def outer() -> list[dict[str, str]]:
    """Run another task at once."""
    return [dict(tags_now()), inner.apply().get(disable_sync_subtasks=False), dict(tags_now())]


def test_statements_of_a_task_are_tagged_with_its_name() -> None:
    """A task inside a task has its own, and both end. Installing twice changes nothing."""
    install_celery_tags()
    install_celery_tags()
    assert outer.apply().get() == [{"job": "shop.outer"}, {"job": "shop.inner"}, {"job": "shop.outer"}]
    assert tags_now() == {}


@app.task(name="shop.failing")  # type: ignore[untyped-decorator]  # Celery has no types
def failing() -> None:
    """Be a task that raises."""
    raise ValueError


def test_the_tag_of_a_task_that_fails_ends_too() -> None:
    """The next task of the worker must not have its name."""
    install_celery_tags()
    failing.apply()
    assert tags_now() == {}
