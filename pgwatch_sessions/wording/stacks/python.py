"""The stacks of Python.

Measured with SQLAlchemy 2.0 and 2.1, asyncpg 0.32, psycopg 3.3 with psycopg_pool 3.3, and Django 5.2, on PostgreSQL 15,
16 and 18. No one of them sets an application_name.

* SQLAlchemy casts parameters to type names in capitals (`$1::INTEGER`) with asyncpg and psycopg. With every driver it
  names expressions `count_1` and `anon_1`, and the columns of a Query `orders_id`.
* asyncpg ends its own BEGIN, COMMIT and ROLLBACK with `;` and names its savepoints. So does Knex with `BEGIN;` and
  `COMMIT;`; see `others.py`. asyncpg's pool resets a connection with a block of statements of its own.
* psycopg 3 sends `DEALLOCATE ALL` after a rollback once it has prepared statements.
* Django quotes each name, and names its savepoints after the thread.
* Terminated sessions: asyncpg's pool replaces them. SQLAlchemy's pool and psycopg_pool count them as taken until the
  code returns them. A request of Django that uses one fails, and the next request of its thread opens a new one.
* Django under ASGI with CONN_MAX_AGE above 0: each request leaves a connection behind, until the garbage collector
  closes it.
"""

import re

from pgwatch_sessions.wording.stacks.stack import Family, Stack, Words

_SKIPPED = "an exception, an early return or a cancelled request that skips closing the session"
_EXTERNAL = "an external call inside the transaction that never returns"
_DEPENDENCY = "a session dependency that stays open during a StreamingResponse or a background task"
_CLOSE_SESSION = "Each must close the session. Move external calls, streams and background tasks out of the session."

FASTAPI = Stack(
    name="FastAPI",
    family=Family.PYTHON,
    anchor="sqlalchemy-and-fastapi",
    applications=re.compile(r"\bfastapi\b"),
    tags=("fastapi", "starlette"),
    words=Words(
        transaction_causes=f"{_SKIPPED}; {_EXTERNAL}; or {_DEPENDENCY} (FastAPI before 0.106 and from 0.118 on)",
        stays_open=f"{_DEPENDENCY} (FastAPI before 0.106 and from 0.118 on)",
        transaction_code=_CLOSE_SESSION,
        transaction_guard="a `with` block around each session "
        '(FastAPI from 0.121 on: `Depends(get_db, scope="function")`)',
    ),
)

DJANGO = Stack(
    name="Django",
    family=Family.PYTHON,
    anchor="django",
    applications=re.compile(r"\bdjango\b"),
    tags=("django",),
    statements=re.compile(r'"(?:django_\w+|_django_curs_\w+|s\d+_x\d+)"'),
    words=Words(
        transaction_causes="an external call inside `transaction.atomic()` or, with ATOMIC_REQUESTS, anywhere in the "
        "view; or `set_autocommit(False)` without a commit and rollback",
        stays_open="a slow view with ATOMIC_REQUESTS",
        connection_causes="a thread of the application's own that never closes its connection, or, under ASGI, "
        "CONN_MAX_AGE above 0",
        growth_causes="CONN_MAX_AGE above 0 under ASGI, where each request leaves its connection behind, or threads "
        "that end without closing their connection",
        abandoned="a thread whose connection is kept by CONN_MAX_AGE",
        terminated="A request that uses a terminated connection fails; then Django opens a new one. The pool option of "
        "Django 5.1 and later counts a terminated connection as taken until its request ends.",
        transaction_code="End the `atomic()` block before an external call, and use `transaction.on_commit()` for what "
        "follows. Exempt slow views with `@transaction.non_atomic_requests`.",
        connection_code="threads and consumers that do not end with `connections.close_all()`",
        growth_code="threads that use the database",
        transaction_guard="short `atomic()` blocks instead of ATOMIC_REQUESTS",
        connection_guard='under ASGI `CONN_MAX_AGE = 0` or, from Django 5.1 on, `OPTIONS = {"pool": True}`, '
        "`connections.close_all()` at the end of each thread of your own",
    ),
)

SQLALCHEMY = Stack(
    name="SQLAlchemy",
    family=Family.PYTHON,
    anchor="sqlalchemy-and-fastapi",
    applications=re.compile(r"\b(?:sqlalchemy|alembic)\b"),
    tags=("sqlalchemy",),
    statements=re.compile(r"\$\d+::[A-Z]{3}|\bAS (?:anon|count|sum|max|min|coalesce)_1\b|\b(\w+)\.(\w+) AS \1_\2\b"),
    words=Words(
        transaction_causes=f"{_SKIPPED}; {_EXTERNAL}; or {_DEPENDENCY} (with FastAPI before 0.106 and from 0.118 on)",
        stays_open=f"{_DEPENDENCY} (with FastAPI before 0.106 and from 0.118 on)",
        begun="a `begin()` outside a `with` block",
        connection_causes="a `connect()` that is never closed, or an AUTOCOMMIT session that is kept open",
        growth_causes="`connect()` without a close, or an AUTOCOMMIT session that is kept open",
        abandoned="an engine",
        terminated="SQLAlchemy's pool still counts terminated connections as checked out. Restart the application.",
        transaction_code=_CLOSE_SESSION,
        connection_code="`connect()` and AUTOCOMMIT sessions",
        growth_code="connections and engines",
        transaction_guard="a `with` block around each session "
        '(with FastAPI from 0.121 on: `Depends(get_db, scope="function")`)',
        connection_guard="a `with` block around each connection",
    ),
)

_ASYNCPG_WORDS = Words(
    transaction_causes="an exception or a cancelled request after `transaction().start()`, an external call inside the "
    "transaction that never returns, or `pool.acquire()` without a release",
    begun="asyncpg's `transaction().start()` outside a `with` block",
    connection_causes="asyncpg's `pool.acquire()` without a release, or a `connect()` that is never closed",
    growth_causes="`connect()` without a close, or asyncpg's `pool.acquire()` without a release",
    abandoned="a pool",
    terminated="asyncpg's own pool replaces terminated connections. SQLAlchemy's pool, if the application uses it, "
    "still counts them as checked out until the application is restarted.",
    connection_code="`acquire()` and `connect()`",
    growth_code="connections and pools",
    transaction_guard="`async with connection.transaction()`",
    connection_guard="`async with pool.acquire()`",
)

ASYNCPG_POOL = Stack(
    name="asyncpg's pool",
    family=Family.PYTHON,
    anchor="asyncpg",
    statements=re.compile(r"\ASELECT pg_advisory_unlock_all\(\); ?CLOSE ALL; ?UNLISTEN \*; ?RESET ALL;\Z"),
    words=Words(
        connection_causes="asyncpg's `pool.acquire()` without a release",
        terminated="asyncpg's pool replaces terminated connections. Restart the application if its requests still wait "
        "for a connection.",
        connection_code="`pool.acquire()`",
        connection_guard=_ASYNCPG_WORDS.connection_guard,
    ),
)

ASYNCPG = Stack(
    name="asyncpg",
    family=Family.PYTHON,
    anchor="asyncpg",
    applications=re.compile(r"\basyncpg\b"),
    tags=("asyncpg",),
    statements=re.compile(r"\A(?:BEGIN|COMMIT|ROLLBACK)(?: [A-Z ,]+)?;|__asyncpg_"),
    words=_ASYNCPG_WORDS,
)

PSYCOPG = Stack(
    name="psycopg",
    family=Family.PYTHON,
    anchor="psycopg-and-psycopg_pool",
    applications=re.compile(r"\bpsycopg"),
    tags=("psycopg",),
    statements=re.compile(r"\ADEALLOCATE ALL\Z"),
    words=Words(
        transaction_causes="an exception or an early return that skips `commit()` and `rollback()`, an external call "
        "inside the transaction that never returns, or `getconn()` without `putconn()`. psycopg opens a transaction "
        "with the first statement, also with a SELECT",
        begun="a `transaction()` outside a `with` block",
        connection_causes="`getconn()` without `putconn()`, or a `connect()` that is never closed, with autocommit on",
        growth_causes="`connect()` without a close, or `getconn()` without `putconn()`",
        terminated="psycopg_pool still counts terminated connections as taken until the code returns them. Restart the "
        "application.",
        transaction_code="Each must commit, roll back or close the connection. Move external calls and streams out of "
        "the block.",
        connection_code="`getconn()` and `connect()`",
        transaction_guard="`with pool.connection()` or `with connection.transaction()` around the statements",
        connection_guard="`with pool.connection()`",
    ),
)
