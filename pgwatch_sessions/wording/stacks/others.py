"""The stacks of other languages, and PgBouncer.

Measured with HikariCP 6.3 and pgjdbc 42.7, pgx 5 and lib/pq with database/sql, node-postgres 8, Knex 3 and
PgBouncer 1.18, on PostgreSQL 18. Read in documentation and issues: Rails and Npgsql.

* pgjdbc sets the application_name `PostgreSQL JDBC Driver`. HikariCP asks for `SHOW TRANSACTION ISOLATION LEVEL`. The
  name of its pool does not reach the server. Hibernate 6 names tables `o1_0`.
* Ruby's pg sets the name of the process, shortened: `puma: cluster worker 0: 10 [shop]`, `bin/rails`,
  `sidekiq 7.2 shop [0 of 5 busy]`. Active Record names savepoints `active_record_1`.
* pgx sends `begin`, `commit` and `rollback` in lower case. A person may write them too, so the advice says what shows
  the stack. pgx, lib/pq, node-postgres and Knex set no application_name.
* Knex writes keywords in lower case and quotes each name. So does jOOQ, which qualifies the names. Knex sends `BEGIN;`
  like asyncpg, so Node comes first.
* Npgsql sets no application_name. It resets a connection together with the next statement, so a session at rest shows
  no reset.
* After pg_terminate_backend, HikariCP, database/sql and pgxpool count a connection as in use until the code closes it.
  node-postgres does too, and a client in use emits `error`: without a listener, this ends the process.
* PgBouncer resets a connection with `DISCARD ALL`, in session mode. It closes the client's connection whose server
  connection was terminated.
"""

import re

from pgwatch_sessions.wording.stacks.stack import Family, Stack, Words

RAILS = Stack(
    name="Rails",
    family=Family.RUBY,
    anchor="rails",
    applications=re.compile(
        r"\brails\b|\A(?:\S*/)?(?:rake|puma|sidekiq|unicorn|bin/jobs|resque|good_job|delayed_job)\b|\Apassenger\b"
    ),
    tags=("rails",),
    statements=re.compile(r'\bSAVEPOINT active_record_\d|"(?:ar_internal_metadata|solid_queue_\w+)"'),
    words=Words(
        transaction_causes="an external call, a mail or a job inside a `transaction` block, or `begin_db_transaction` "
        "without its end",
        stays_open="a callback such as `after_save` that calls another service",
        connection_causes="`lease_connection`, `connection` or `checkout` in a thread of your own that never returns "
        "the connection",
        growth_causes="threads of your own that use Active Record and live on, or `establish_connection` in a request",
        abandoned="a pool (`establish_connection`)",
        terminated="Active Record reconnects a terminated connection when it is taken from the pool again. A "
        "connection that a live thread still holds stays taken: restart that process.",
        transaction_code="End the `transaction` block before an external call; use `after_commit` for mail and jobs.",
        connection_code="`Thread.new`, `lease_connection` and `checkout`",
        growth_code="threads, and calls of `establish_connection`,",
        transaction_guard="short `transaction` blocks",
        connection_guard="`ActiveRecord::Base.connection_pool.with_connection` in each thread of your own (the "
        "reaper takes connections back only from threads that have ended)",
    ),
)

JDBC = Stack(
    name="JDBC and HikariCP",
    family=Family.JVM,
    anchor="jdbc-and-hikaricp",
    applications=re.compile(r"postgresql jdbc driver|hikari|\b(?:jdbc|spring|hibernate|quarkus)\b"),
    tags=("spring", "jdbc", "hibernate", "quarkus", "postgresql jdbc"),
    statements=re.compile(r"\ASHOW TRANSACTION ISOLATION LEVEL\Z|\A(?:select|update|delete) .*\b[a-z]+\d+_\d+\."),
    words=Words(
        transaction_causes="a connection with `setAutoCommit(false)` that is not closed on every way out, or an "
        "external call inside a `@Transactional` method that never returns",
        stays_open="a `Stream` or `ResultSet` that is read slowly inside a `@Transactional` method",
        connection_causes="a `Connection` that is not closed on every way out, such as `getConnection()` outside "
        "try-with-resources",
        growth_causes="`DriverManager.getConnection()` without a close, or a `DataSource` that is made for each "
        "request",
        abandoned="a `DataSource`",
        terminated="HikariCP still counts terminated connections as in use until the code closes them. Restart the "
        "application.",
        transaction_code="Each must close the connection. Move external calls out of `@Transactional` methods. Set "
        "HikariCP's `leakDetectionThreshold` to 30000 (30 s): it logs the stack trace of the code that took a "
        "connection.",
        connection_code="`getConnection()` outside try-with-resources",
        growth_code="a `DataSource` and connections",
        transaction_guard="try-with-resources around each connection, HikariCP's `leakDetectionThreshold`",
        connection_guard="try-with-resources around each connection, HikariCP's `leakDetectionThreshold`",
    ),
)

NODE = Stack(
    name="node-postgres",
    family=Family.NODE,
    anchor="node-postgres",
    applications=re.compile(r"\Anode\Z|\b(?:nodejs|node\.js|node-postgres|knex|sequelize|typeorm)\b"),
    tags=("knex", "sequelize", "typeorm", "express", "koa", "fastify", "nestjs", "node"),
    statements=re.compile(r'\A(?:select|insert into|update|delete from) [^.]*"\w+"[^.]*\$\d'),
    words=Words(
        transaction_causes="a `client` from `pool.connect()` that is not released after an exception, or a transaction "
        "whose `COMMIT` or `ROLLBACK` is skipped because a promise is not awaited or rejects",
        stays_open="an `await` on another service between `BEGIN` and `COMMIT`",
        begun="a transaction whose next promise never settles",
        connection_causes="`pool.connect()` without `client.release()`, or a `new Client()` that is never ended",
        growth_causes="a `new Client()` without `end()`, or `pool.connect()` without `client.release()`",
        abandoned="a `new Pool()`",
        terminated="node-postgres still counts terminated clients as in use. A client in use without a listener for "
        "`error` ends the process when it is terminated. Restart the application.",
        transaction_code="Each must end the transaction and call `client.release()` in a `finally` block. Move "
        "`await`s on other services out of the transaction.",
        connection_code="`pool.connect()` without `finally { client.release() }`",
        growth_code="a `new Client()` and `new Pool()`",
        transaction_guard="`try { … } finally { client.release() }`, with `ROLLBACK` in the `catch` block",
        connection_guard="`pool.query()` for single statements, and `finally { client.release() }` otherwise",
    ),
)

NPGSQL = Stack(
    name="Npgsql",
    family=Family.DOTNET,
    anchor="npgsql",
    applications=re.compile(r"npgsql|\bdotnet\b|\.net\b|\befcore\b|\bentity ?framework"),
    tags=("npgsql", "efcore", "aspnetcore", "dotnet"),
    words=Words(
        transaction_causes="an `NpgsqlConnection` or `NpgsqlTransaction` that is not disposed on every way out, or an "
        "`await` on another service inside the transaction",
        stays_open="a reader or an `IAsyncEnumerable` that is consumed slowly",
        begun="a `BeginTransactionAsync()` without `await using`",
        connection_causes="an `NpgsqlConnection` or a reader that is opened and not disposed",
        growth_causes="connections that are opened and not disposed",
        abandoned="an `NpgsqlDataSource`, or a connection string of its own,",
        terminated="Npgsql still counts terminated connections as busy until the code disposes them. Restart the "
        "application.",
        transaction_code="Each must dispose the connection: write `await using`. Move calls to other services out of "
        "the transaction.",
        connection_code="`OpenAsync()` and `ExecuteReaderAsync()` without `await using`",
        growth_code="an `NpgsqlDataSource` and connections",
        transaction_guard="`await using` for connection, transaction and reader",
        connection_guard="`await using` for connection and reader, `Maximum Pool Size` below the role's connection "
        "limit",
    ),
)

GO = Stack(
    name="Go (database/sql, pgx)",
    family=Family.GO,
    anchor="go-databasesql-and-pgx",
    applications=re.compile(r"\b(?:pgx|pgxpool|golang|gorm|lib/pq)\b"),
    tags=("pgx", "gorm", "database/sql", "net/http", "gin", "gorilla", "echo"),
    statements=re.compile(r"\A(?:begin|commit|rollback)(?: isolation level [a-z ]+| read (?:write|only))*\Z"),
    words=Words(
        transaction_causes="a `tx` without a deferred `tx.Rollback()`, or an external call inside the transaction "
        "whose context has no time-out",
        stays_open="rows that are read slowly",
        begun="a `Begin` without a deferred `Rollback`",
        connection_causes="`rows` that are not closed (`Query` without `defer rows.Close()`), or `Acquire` and `Conn` "
        "without a release",
        growth_causes="`sql.Open` or `pgxpool.New` in a request, or `pgx.Connect` without a close",
        abandoned="an `sql.DB` or `pgxpool.Pool`",
        terminated="database/sql and pgxpool still count terminated connections as in use until the code closes its "
        "rows and transactions. Restart the application.",
        transaction_code="Write `defer tx.Rollback()` after each `Begin`: after a commit it does nothing. Pass a "
        "context with a time-out.",
        connection_code="`Query` without `defer rows.Close()`, and `Acquire` without a deferred `Release`,",
        growth_code="pools (`sql.Open`, `pgxpool.New`)",
        transaction_guard="`defer tx.Rollback()`, contexts with time-outs",
        connection_guard="`defer rows.Close()` after each `Query`, `SetMaxOpenConns`",
    ),
)

PGBOUNCER = Stack(
    name="PgBouncer",
    family=Family.POOLER,
    anchor="pgbouncer-in-front",
    applications=re.compile(r"\bpgbouncer\b"),
    statements=re.compile(r"\ADISCARD ALL\Z"),
    words=Words(
        behind="They come through a pooler such as PgBouncer: its `SHOW SERVERS` and `SHOW CLIENTS` tell which process "
        "uses which session.",
        terminated="PgBouncer replaces terminated connections, and closes the connection of the application that used "
        "them. The application's own pool may still count it as in use: restart the application if its requests wait.",
    ),
)
