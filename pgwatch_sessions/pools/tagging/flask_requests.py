"""Tags the statements of requests to Flask with the template of their route and the name of their endpoint."""

import re

from pgwatch_sessions.pools.ledger import current_tags

try:
    from flask import Flask, request
except ImportError as error:
    raise ImportError("tag_flask_requests needs Flask: pip install flask") from error

#: `<int:id>`, `<id>`
_CONVERTER = re.compile(r"<(?:[^<>:]*:)?([^<>]+)>")


def tag_flask_requests(app: Flask) -> None:
    """Tag the statements of every request from now on. Call it before other functions are registered."""

    @app.before_request
    def begin_request() -> None:
        rule = request.url_rule
        if rule is not None:
            values = {"route": _CONVERTER.sub(r"{\1}", rule.rule), "controller": rule.endpoint}
            current_tags.set(lambda: values)

    @app.teardown_request
    def end_request(_error: BaseException | None) -> None:
        current_tags.set(None)
