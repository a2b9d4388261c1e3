-- What a person who sets up the monitoring wants to know of the server, of our role and of our session. One row.
--
-- The role `pg_use_reserved_connections` exists since PostgreSQL 16, as does the setting reserved_connections. To a role
-- without pg_read_all_stats, backend_type of other roles' sessions is NULL; application_name is not hidden. Among those,
-- clients have a database; background processes with a role have none.
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::int AS version_num,
    pg_is_in_recovery() AS in_recovery,
    current_user::text AS role,
    current_database()::text AS database,
    pg_backend_pid() AS pid,
    host(inet_server_addr()) AS server_address,
    coalesce(tls.ssl, false) AS encrypted,
    tls.version AS tls_version,
    tls.cipher AS tls_cipher,
    r.rolsuper AS superuser,
    pg_has_role('pg_read_all_stats', 'USAGE') AS reads_all_stats,
    r.rolconnlimit AS role_limit,
    coalesce(
        (SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = 'pg_use_reserved_connections'), false
    ) AS uses_reserved,
    current_setting('max_connections')::int AS max_connections,
    current_setting('superuser_reserved_connections')::int AS superuser_reserved_connections,
    coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved_connections,
    pg_size_bytes(current_setting('track_activity_query_size'))::int AS query_size,
    current_setting('track_activities')::bool AS track_activities,
    sessions.*
FROM
    pg_roles AS r
LEFT JOIN pg_stat_ssl AS tls ON tls.pid = pg_backend_pid()
CROSS JOIN (
    SELECT
        count(*)::int AS sessions,
        (count(*) FILTER (WHERE usename = current_user))::int AS role_sessions,
        (count(*) FILTER (WHERE application_name = ''))::int AS unnamed_sessions,
        (count(*) FILTER (WHERE state = 'disabled'))::int AS untracked_sessions
    FROM pg_stat_activity
    WHERE CASE
        WHEN backend_type IS NULL THEN usesysid IS NOT NULL AND datid IS NOT NULL
        ELSE backend_type = 'client backend'
    END
) AS sessions
WHERE r.rolname = current_user
