"""A Django project in one file: `python -m django test --settings=django_shop django_orders`."""

import os
from typing import Any
from urllib.parse import urlsplit

import psycopg
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path

_url = urlsplit(os.environ["DSN"])
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _url.hostname,
        "PORT": _url.port,
        "USER": _url.username,
        "NAME": _url.path[1:],
    }
}
ROOT_URLCONF = __name__
SECRET_KEY = "only for this example"
ALLOWED_HOSTS = ["testserver"]
_connections: list[psycopg.Connection] = []


def orders(_request: HttpRequest) -> HttpResponse:
    """Use Django's connection, which Django keeps."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_class")
        return HttpResponse(str(cursor.fetchone()))


def report(_request: HttpRequest) -> HttpResponse:
    """Open another connection, and never close it."""
    _connections.append(psycopg.connect(os.environ["DSN"]))
    return HttpResponse("done")


urlpatterns = [path("orders", orders), path("report", report)]
