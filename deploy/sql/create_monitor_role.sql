-- The role that pgwatch_sessions connects as, for PostgreSQL 14 to 18. The script may be run again.
--
--     psql -X -1 -v ON_ERROR_STOP=1 -f create_monitor_role.sql
--
-- Run it as a superuser, or as the administrator of a managed service. The role gets no password here, so that none
-- ends up in a history or a log: set one with psql's `\password pgwatch_sessions`, or allow the role in pg_hba.conf
-- by certificate or peer. It needs CONNECT on one database, whichever; PUBLIC has that unless it was revoked.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pgwatch_sessions') THEN
        CREATE ROLE pgwatch_sessions;
    END IF;
END
$$;

-- Three connections: the daemon holds one; the server may still count a lost one when the daemon has opened the next;
-- one is left for a person, or for `pgwatch-sessions check`. Whatever goes wrong, monitoring takes no more than that.
ALTER ROLE pgwatch_sessions LOGIN CONNECTION LIMIT 3;

-- Without pg_read_all_stats, which is part of pg_monitor, the state and all times of other roles' sessions are hidden.
-- No privilege on any table is needed, and none to cancel or end sessions.
GRANT pg_monitor TO pgwatch_sessions;

-- From 16 on, lets the daemon start, or come back, on a server that is full for everybody else, but only where
-- reserved_connections is more than its default of 0: set it to 3, say, and restart the server.
-- Before 16, and without such slots, only the connection opened earlier still sees a full server.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_use_reserved_connections') THEN
        GRANT pg_use_reserved_connections TO pgwatch_sessions;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'pg_use_reserved_connections is not yours to grant: pgwatch_sessions cannot use reserved slots';
END
$$;

-- For people who connect as this role. The daemon sets the same for its own session, as short as a poll may take.
ALTER ROLE pgwatch_sessions SET default_transaction_read_only = on;
ALTER ROLE pgwatch_sessions SET statement_timeout = '10s';
ALTER ROLE pgwatch_sessions SET lock_timeout = '1s';
ALTER ROLE pgwatch_sessions SET idle_in_transaction_session_timeout = '10s';
