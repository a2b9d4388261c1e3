"""Tests of a Django project: its TestCase keeps a transaction open for all tests of a class."""

import os
from urllib.parse import urlsplit

import django
import psycopg
from django.conf import settings
from django.db import connection
from django.test import TestCase

_url = urlsplit(os.environ["TEST_DSN"])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": _url.hostname,
            "PORT": _url.port,
            "USER": _url.username,
            "NAME": _url.path[1:],
        }
    }
)
django.setup()
KEPT: list[psycopg.Connection] = []


class OrdersTest(TestCase):  # type: ignore[misc]  # Django has no types
    """Two tests in one transaction."""

    def test_first(self) -> None:
        """Use Django's connection."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_class")

    def test_second(self) -> None:
        """Use it again."""
        self.test_first()

    def test_third(self) -> None:
        """Leave out a connection that is not Django's."""
        KEPT.append(psycopg.connect(os.environ["TEST_DSN"]))
