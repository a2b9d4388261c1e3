-- The shop's database, its role and the monitoring role. The image's entrypoint runs this once, on an empty data folder,
-- by psql as the user postgres.

-- The server logs a statement that fails, and two of these hold a password.
SET log_min_error_statement = panic;

\set orders_password `cat /run/secrets/orders-password`
\set monitor_password `cat /run/secrets/pgwatch-sessions-password`

CREATE ROLE orders LOGIN CONNECTION LIMIT 12 PASSWORD :'orders_password';
CREATE DATABASE shop OWNER orders;

\i /etc/postgresql/create_monitor_role.sql
ALTER ROLE pgwatch_sessions PASSWORD :'monitor_password';
