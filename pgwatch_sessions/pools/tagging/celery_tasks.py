"""Tags the statements of Celery tasks with the task's name as `job`."""

from contextvars import Token
from typing import Any

from pgwatch_sessions.pools.ledger import TagSource
from pgwatch_sessions.pools.tagging.context import begin, end

try:
    from celery.signals import task_postrun, task_prerun
except ImportError as error:
    raise ImportError("install_celery_tags needs Celery: pip install celery") from error

#: Of the tasks that run now, by their id.
_running: dict[str, Token[TagSource | None]] = {}


def install_celery_tags() -> None:
    """Tag the statements of every task that this process runs from now on."""
    task_prerun.connect(_begin_task, weak=False, dispatch_uid="pgwatch_sessions.tags")
    task_postrun.connect(_end_task, weak=False, dispatch_uid="pgwatch_sessions.tags")


def _begin_task(task_id: str, task: Any, **_: object) -> None:
    values = {"job": str(task.name)}
    _running[task_id] = begin(lambda: values)


def _end_task(task_id: str, **_: object) -> None:
    token = _running.pop(task_id, None)
    if token is not None:
        end(token)
