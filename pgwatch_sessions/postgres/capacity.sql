-- The server's version and start, and how many connections it, its roles and its databases allow. One row.
--
-- A limit of a superuser has no effect and is left out. A database limit of -2 marks an invalid database, and is left out
-- too. reserved_connections exists since PostgreSQL 16.
SELECT
    current_setting('server_version_num')::int AS server_version_num,
    pg_is_in_recovery() AS in_recovery,
    date_part('epoch', pg_postmaster_start_time()) AS started_at,
    current_setting('max_connections')::int AS max_connections,
    current_setting('superuser_reserved_connections')::int AS superuser_reserved_connections,
    coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved_connections,
    (
        SELECT json_object_agg(rolname, rolconnlimit ORDER BY rolname)::text
        FROM pg_roles
        WHERE rolconnlimit >= 0 AND NOT rolsuper AND rolcanlogin
    ) AS role_limits,
    (
        SELECT json_object_agg(datname, datconnlimit ORDER BY datname)::text
        FROM pg_database
        WHERE datconnlimit >= 0
    ) AS database_limits
