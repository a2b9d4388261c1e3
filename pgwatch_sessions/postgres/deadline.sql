-- Change how long the server lets a statement of our session run, and waits for it, after `timeout` was changed. One row
-- for each parameter. The session keeps its backend: no new connection is needed, which a full server would refuse.
SELECT set_config(name, $1, false)
FROM unnest(ARRAY['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'tcp_user_timeout']) AS name
