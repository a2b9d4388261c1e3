-- The session counters of every database since its statistics were last reset: exact between polls, where counting
-- sessions at each poll misses those that come and go. One row a database; the times are milliseconds.
--
-- Not the view pg_stat_database but the functions below it, since the view computes thirty columns to show eight.
-- Thousands of databases would be thousands of series: the oldest 500 are read, an order that does not change from
-- poll to poll.
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
