-- Whether the server's sessions are read only unless they say otherwise. One value, 'on' or 'off'.
--
-- Ours says otherwise, but with SET. So its reset_val is what the server, the database and the role say, and follows them.
SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only'
