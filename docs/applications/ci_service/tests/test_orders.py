"""Ordinary tests of the service. The plugin checks them for connections that they leave out."""

from fastapi.testclient import TestClient
from orders.main import app


def test_orders() -> None:
    """Some orders are listed."""
    with TestClient(app) as client:
        assert len(client.get("/orders").json()) == 3


def test_no_such_order() -> None:
    """An early end, where connections are forgotten."""
    with TestClient(app) as client:
        assert client.get("/orders/0").status_code == 404
