-- Every client backend with its state, the ages of its transaction and statement, and the sessions that block it. One
-- row per session, our own included. Only the row of our own session has `own`: what is asked of the server, as JSON, because
-- a second statement would be a second round trip.
--
-- $1 says whether the version, start and limits of the server are wanted, which change rarely. $2 says whether the texts of
-- statements are, which are most of the bytes. A link that is too slow for them gets no wait events of idle sessions either,
-- which all wait for their clients.
--
-- This reads the function behind the view pg_stat_activity. The view joins and decodes columns that are not needed, and
-- costs the server half as much again. It must be one statement outside a transaction block: inside one, the activity
-- is a frozen snapshot.
--
-- Times are epochs, because decoding timestamptz is the largest part of what a poll costs the client. The server's clock
-- is returned in our own row only. It is read after the function has read all sessions, so no age is negative.
--
-- To a role without pg_read_all_stats (part of pg_monitor), rows of other roles show NULL in backend_type, state and all
-- times. Such a session is hidden from us, but it uses a slot, so its row is kept. Background processes are hidden too;
-- they have no user, and are left out.
--
-- pg_blocking_pids costs time that grows with the square of the number of waiting sessions, so it is called only for the
-- fifty that have waited longest. The inner CASE makes PostgreSQL compute those fifty at the first session that waits,
-- and never if no session waits. With AND instead, they would be computed for sessions that wait for something else.
--
-- A statement is stored in the encoding of its session's database, so its bytes may be no valid text in ours. textsend
-- returns them unconverted, because our client_encoding is SQL_ASCII, and substring cuts bytes. left() cuts characters,
-- and fails if a text ends in the middle of one.
--
-- Sessions that block are text, because the driver would first ask the server what an array is.
--
-- The counters of a database since its statistics were last reset are exact between polls. Counting the sessions of each
-- poll would miss those that come and go in between. They are read from the functions behind the view pg_stat_database,
-- because the view computes thirty columns. Times are milliseconds. Each database becomes a set of series, so only the 500
-- oldest are read; the order by oid does not change from poll to poll.
--
-- A limit of a superuser has no effect and is left out. A database limit of -2 marks an invalid database, and is left out
-- too. reserved_connections exists since PostgreSQL 16.
--
-- The WHERE condition is a CASE because the planner expects OR to match few rows, and would then scan pg_database once
-- per session.
SELECT
    s.pid,
    date_part('epoch', s.backend_start) AS backend_start,
    s.backend_type IS NULL AS hidden,
    d.datname,
    pg_get_userbyid(s.usesysid) AS usename,
    s.application_name,
    host(s.client_addr) AS client_addr,
    s.client_port,
    s.state,
    date_part('epoch', s.state_change) AS state_change,
    date_part('epoch', s.xact_start) AS xact_start,
    date_part('epoch', s.query_start) AS query_start,
    CASE WHEN $2 OR s.state = 'active' THEN s.wait_event_type END AS wait_event_type,
    CASE WHEN $2 OR s.state = 'active' THEN s.wait_event END AS wait_event,
    age(s.backend_xid) AS backend_xid_age,
    age(s.backend_xmin) AS backend_xmin_age,
    CASE
        WHEN s.wait_event_type = 'Lock' THEN
            CASE
                WHEN s.pid = ANY (ARRAY(
                    SELECT w.pid
                    FROM pg_stat_get_activity(NULL) AS w
                    WHERE w.wait_event_type = 'Lock'
                    ORDER BY w.state_change
                    LIMIT 50
                )) THEN array_to_string(pg_blocking_pids(s.pid), ',')
            END
    END AS blocked_by,
    CASE WHEN $2 THEN substring(textsend(s.query), 1, 8192) END AS query,
    CASE WHEN s.pid = pg_backend_pid() THEN json_build_object(
        'taken_at', date_part('epoch', clock_timestamp()),
        'databases', (
            SELECT json_agg(json_build_object(
                'datname', datname,
                'established', pg_stat_get_db_sessions(oid),
                'abandoned', pg_stat_get_db_sessions_abandoned(oid),
                'fatal', pg_stat_get_db_sessions_fatal(oid),
                'killed', pg_stat_get_db_sessions_killed(oid),
                'session_time', pg_stat_get_db_session_time(oid),
                'active_time', pg_stat_get_db_active_time(oid),
                'idle_in_transaction_time', pg_stat_get_db_idle_in_transaction_time(oid)
            ) ORDER BY oid)
            FROM (SELECT oid, datname FROM pg_database ORDER BY oid LIMIT 500) AS databases
        ),
        'server', CASE WHEN $1 THEN json_build_object(
            'server_version_num', current_setting('server_version_num')::int,
            'in_recovery', pg_is_in_recovery(),
            'started_at', date_part('epoch', pg_postmaster_start_time()),
            'max_connections', current_setting('max_connections')::int,
            'superuser_reserved_connections', current_setting('superuser_reserved_connections')::int,
            'reserved_connections', coalesce(current_setting('reserved_connections', true)::int, 0),
            'role_limits', (
                SELECT json_object_agg(rolname, rolconnlimit ORDER BY rolname)
                FROM pg_roles
                WHERE rolconnlimit >= 0 AND NOT rolsuper AND rolcanlogin
            ),
            'database_limits', (
                SELECT json_object_agg(datname, datconnlimit ORDER BY datname)
                FROM pg_database
                WHERE datconnlimit >= 0
            )
        ) END
    )::text END AS own
FROM pg_stat_get_activity(NULL) AS s
LEFT JOIN pg_database AS d ON d.oid = s.datid
WHERE CASE
    WHEN s.backend_type IS NULL THEN s.usesysid IS NOT NULL AND s.datid IS NOT NULL
    ELSE s.backend_type = 'client backend'
END
