"""Django in one file. In a project, the settings belong into settings.py and the rest into urls.py and views.py."""

import os

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["PGDATABASE"],
            "USER": os.environ["PGUSER"],
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "OPTIONS": {"application_name": "orders"},
        }
    },
    MIDDLEWARE=["pgwatch_sessions.pools.tagging.django_requests.TagMiddleware"],
    PGWATCH_SESSIONS_APPLICATION="orders",
    ROOT_URLCONF=__name__,
)


def read_order(_request: HttpRequest, order: int) -> HttpResponse:
    """Read one order."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT cents FROM orders WHERE id = %s", [order])
        row = cursor.fetchone()
    return HttpResponse(str(row[0] if row else 0))


urlpatterns = [path("orders/<int:order>/", read_order, name="read-order")]
