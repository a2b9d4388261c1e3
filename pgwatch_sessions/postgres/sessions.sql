-- Every client backend with its state, the ages of its transaction and statement, and the sessions that block it. One
-- row per session, our own included.
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
-- The WHERE condition is a CASE because the planner expects OR to match few rows, and would then scan pg_database once
-- per session.
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
    substring(textsend(s.query), 1, 8192) AS query,
    CASE WHEN s.pid = pg_backend_pid() THEN date_part('epoch', clock_timestamp()) END AS taken_at
FROM pg_stat_get_activity(NULL) AS s
LEFT JOIN pg_database AS d ON d.oid = s.datid
WHERE CASE
    WHEN s.backend_type IS NULL THEN s.usesysid IS NOT NULL AND s.datid IS NOT NULL
    ELSE s.backend_type = 'client backend'
END
