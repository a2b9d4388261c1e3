import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("from pgwatch_sessions.pools import TagMiddleware, job, tags", set()),
        ("from pgwatch_sessions.pools import tag_statements", {"sqlalchemy"}),
        ("from pgwatch_sessions.pools import tagged_connection", {"asyncpg"}),
    ],
)
def test_only_the_library_that_is_tagged_is_imported(statement: str, allowed: set[str]) -> None:
    """Neither the daemon nor its libraries come into somebody's application."""
    program = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))\n"
    program += "print(*(name for name in sys.modules if name.startswith('pgwatch_sessions.')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    packages, ours = (set(line.split()) for line in done.stdout.splitlines())
    libraries = {"asyncpg", "sqlalchemy", "celery", "django", "flask", "fastapi", "starlette"}
    assert packages & libraries == allowed
    assert not packages & {"structlog", "prometheus_client", "pydantic", "apscheduler", "uvicorn", "jinja2", "yaml"}
    assert {name for name in ours if not name.startswith("pgwatch_sessions.pools")} == set()


@pytest.mark.parametrize(
    ("library", "used", "message"),
    [
        (
            "sqlalchemy",
            "pools.tag_statements",
            "tag_statements needs SQLAlchemy: pip install 'pgwatch-sessions[sqlalchemy]'",
        ),
        ("asyncpg", "pools.tagged_connection", "tagged_connection needs asyncpg: pip install asyncpg"),
        ("flask", "pools.tag_flask_requests", "tag_flask_requests needs Flask: pip install flask"),
        ("celery", "pools.install_celery_tags", "install_celery_tags needs Celery: pip install celery"),
        ("django", "pools.tagging.django_requests", "tags for Django need Django: pip install django"),
    ],
)
def test_a_library_that_is_missing_is_named(library: str, used: str, message: str) -> None:
    """The message says what to install."""
    module, _, name = used.rpartition(".")
    program = f"import sys; sys.modules[{library!r}] = None; from pgwatch_sessions.{module} import {name}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"ImportError: {message}\n" in done.stderr
