-- The session counters of every database since its statistics were last reset: exact between looks, where counting
-- sessions at each look misses those that come and go. One row a database; the times are milliseconds.
--
-- The row without a datid counts shared objects. Thousands of databases would be thousands of series: the oldest
-- 500 are read, an order that does not change from look to look.
SELECT
    datname,
    sessions AS established,
    sessions_abandoned AS abandoned,
    sessions_fatal AS fatal,
    sessions_killed AS killed,
    session_time,
    active_time,
    idle_in_transaction_time
FROM pg_stat_database
WHERE datid <> 0 AND datname IS NOT NULL
ORDER BY datid
LIMIT 500
