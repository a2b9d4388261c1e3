-- Every client backend, with its age in each respect and whom it waits for. One row a session, ours included.
--
-- Not the view pg_stat_activity but the function below it: the view joins and decodes more than is needed and
-- costs the server half as much again. Read by one autocommit statement, since inside a transaction the
-- activity is a frozen snapshot.
--
-- Times are epochs because decoding timestamptz is the dearest part of a look for the client. The server's clock
-- is read on our own row only, after the function has read everybody: no age can be negative.
--
-- A role without pg_read_all_stats (in pg_monitor) gets other roles' rows with NULL in backend_type, state and all
-- times. Those rows are kept: they are sessions that use slots, hidden from us. Background processes have no
-- user then either, which tells them from clients.
--
-- pg_blocking_pids grows with the square of the waiters, so only the fifty that wait longest are asked. The array
-- is evaluated on the first row that waits, and not at all when none does: hence one CASE inside the other, since
-- NULL AND … would evaluate it for every row that waits for nothing.
--
-- The condition is a CASE because the planner takes OR for so selective that it would scan pg_database anew for each
-- session.
SELECT
    s.pid,
    date_part('epoch', s.backend_start) AS backend_start,
    s.backend_type,
    d.datname,
    pg_get_userbyid(s.usesysid) AS usename,
    s.application_name,
    host(s.client_addr) AS client_addr,
    s.client_port,
    s.state,
    date_part('epoch', s.state_change) AS state_change,
    date_part('epoch', s.xact_start) AS xact_start,
    date_part('epoch', s.query_start) AS query_start,
    s.wait_event_type,
    s.wait_event,
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
                )) THEN pg_blocking_pids(s.pid)
            END
    END AS blocked_by,
    CASE WHEN octet_length(s.query) > 8192 THEN left(s.query, 8192) ELSE s.query END AS query,
    CASE WHEN s.pid = pg_backend_pid() THEN date_part('epoch', clock_timestamp()) END AS taken_at
FROM pg_stat_get_activity(NULL) AS s
LEFT JOIN pg_database AS d ON d.oid = s.datid
WHERE CASE
    WHEN s.backend_type IS NULL THEN s.usesysid IS NOT NULL AND s.datid IS NOT NULL
    ELSE s.backend_type = 'client backend'
END
