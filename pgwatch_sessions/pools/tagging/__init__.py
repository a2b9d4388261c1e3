"""Comments on statements that name the application, the route or job, and the line that borrowed the connection.

`pgwatch_sessions.pools` has the names for applications; for Django see `django_requests`.
"""
