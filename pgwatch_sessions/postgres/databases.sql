-- The session counters of every database since its statistics were last reset. One row per database; times are
-- milliseconds.
--
-- The counters are exact between polls. Counting the sessions of each poll would miss those that come and go in between.
--
-- This calls the functions behind the view pg_stat_database, because the view computes thirty columns. Each database
-- becomes a set of series, so only the 500 oldest are read; the order by oid does not change from poll to poll.
SELECT
    datname,
    pg_stat_get_db_sessions(oid) AS established,
    pg_stat_get_db_sessions_abandoned(oid) AS abandoned,
    pg_stat_get_db_sessions_fatal(oid) AS fatal,
    pg_stat_get_db_sessions_killed(oid) AS killed,
    pg_stat_get_db_session_time(oid) AS session_time,
    pg_stat_get_db_active_time(oid) AS active_time,
    pg_stat_get_db_idle_in_transaction_time(oid) AS idle_in_transaction_time
FROM pg_database
ORDER BY oid
LIMIT 500
