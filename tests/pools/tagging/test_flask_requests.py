import pytest
from flask import Flask

from pgwatch_sessions.pools import tag_flask_requests
from pgwatch_sessions.pools.tagging.context import tags_now


@pytest.mark.parametrize(
    ("path", "tags"),
    [
        ("/orders/7", {"route": "/orders/{order}", "controller": "read_order"}),
        ("/shops/acme/a/b", {"route": "/shops/{shop}/{rest}", "controller": "read_rest"}),
        ("/none/7", {}),
    ],
)
def test_a_request_has_the_template_of_its_route(path: str, tags: dict[str, str]) -> None:
    """Never its path, which has values. Afterwards the thread has no tags."""
    app, seen = Flask(__name__), list[dict[str, str]]()
    tag_flask_requests(app)

    @app.get("/orders/<int:order>")
    def read_order(order: int) -> str:
        return str(order)

    @app.get("/shops/<shop>/<path:rest>")
    def read_rest(shop: str, rest: str) -> str:
        return shop + rest

    @app.before_request
    def note() -> None:
        seen.append(dict(tags_now()))

    app.test_client().get(path)
    assert seen == [tags]
    assert tags_now() == {}


def test_a_request_that_fails_leaves_no_tags() -> None:
    """The next request of the thread must not have them."""
    app = Flask(__name__)
    tag_flask_requests(app)

    @app.get("/fail")
    def fail() -> str:
        raise ValueError

    assert app.test_client().get("/fail").status_code == 500
    assert tags_now() == {}
