-- Creates the role with which pgwatch_sessions connects, on PostgreSQL 14 to 18. You can run the script again.
--
--     psql -X -1 -v ON_ERROR_STOP=1 -f create_monitor_role.sql
--
-- Run it as a superuser, or as the administrator of a managed service. It sets no password, so that none appears in a
-- history or a log. Set one with psql's `\password pgwatch_sessions`, or use certificate or peer authentication in
-- pg_hba.conf. The role needs CONNECT on any one database; PUBLIC has that unless it was revoked.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pgwatch_sessions') THEN
        CREATE ROLE pgwatch_sessions;
    END IF;
END
$$;

-- At most three connections, even if something goes wrong: one that the daemon holds, one that was lost but that the
-- server still counts, and one for a person or for `pgwatch-sessions check`.
ALTER ROLE pgwatch_sessions LOGIN CONNECTION LIMIT 3;

-- pg_monitor includes pg_read_all_stats. Without it, the state and all times of other roles' sessions are hidden. The
-- role needs no privileges on tables, and none to cancel or terminate sessions.
GRANT pg_monitor TO pgwatch_sessions;

-- In PostgreSQL 16 and later, this lets the daemon start or reconnect on a full server, if reserved_connections is
-- above its default of 0. Set it to 3, for example, and restart the server. Otherwise the daemon can monitor a full
-- server only over a connection that it opened before.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_use_reserved_connections') THEN
        GRANT pg_use_reserved_connections TO pgwatch_sessions;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'you may not grant pg_use_reserved_connections: pgwatch_sessions cannot use reserved slots';
END
$$;

-- For people who connect as this role. The daemon sets these for its own session, with its own time-outs.
ALTER ROLE pgwatch_sessions SET default_transaction_read_only = on;
ALTER ROLE pgwatch_sessions SET statement_timeout = '10s';
ALTER ROLE pgwatch_sessions SET lock_timeout = '1s';
ALTER ROLE pgwatch_sessions SET idle_in_transaction_session_timeout = '10s';
