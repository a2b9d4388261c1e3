-- Creates the shop's database, its role and the monitoring role. The image's entrypoint runs this once, with psql as
-- the user postgres, when the data folder is empty.

-- Do not log failing statements, because two statements below contain passwords.
SET log_min_error_statement = panic;

\set orders_password `cat /run/secrets/orders-password`
\set monitor_password `cat /run/secrets/pgwatch-sessions-password`

CREATE ROLE orders LOGIN CONNECTION LIMIT 12 PASSWORD :'orders_password';
CREATE DATABASE shop OWNER orders;

\i /etc/postgresql/create_monitor_role.sql
ALTER ROLE pgwatch_sessions PASSWORD :'monitor_password';
