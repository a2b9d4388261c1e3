import json
import subprocess
import sys

#: Django is configured once in a process, so it has one of its own. It prints the tags in each view.
PROGRAM = """
import asyncio, json
import django
from django.conf import settings
from django.http import JsonResponse
from django.urls import include, path, re_path
from pgwatch_sessions.pools.tagging.context import tags_now

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, DATABASES={},
    MIDDLEWARE=["pgwatch_sessions.pools.tagging.django_requests.TagMiddleware"])
django.setup()
def show(request, **values):
    return JsonResponse(dict(tags_now()))
async def show_async(request, **values):
    return JsonResponse(dict(tags_now()))
inner = [path("orders/<int:order>/", show, name="read"), re_path(r"^year/(?P<year>[0-9]{4})/$", show),
         path("async/<slug:name>/", show_async)]
urlpatterns = [path("<str:tenant>/", include((inner, "shop")))]
from django.test import AsyncClient, Client
paths = ["/acme/orders/7/", "/acme/year/2026/", "/acme/async/x/"]
for each in paths:
    print(json.dumps([Client().get(each).json(), tags_now()]))
async def main():
    for each in paths:
        print(json.dumps([(await AsyncClient().get(each)).json(), tags_now()]))
asyncio.run(main())
print(json.dumps([{}, tags_now()]) if Client().get("/none").status_code == 404 else "")
"""


def test_a_request_has_route_and_view() -> None:
    """With the prefixes of `include`, in synchronous and asynchronous views and servers; afterwards there are none."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    shown, left = zip(*map(json.loads, done.stdout.splitlines()), strict=True)
    expected = [
        {"route": "/{tenant}/orders/{order}/", "controller": "shop:read"},
        {"route": "/{tenant}/year/(?P{year}[0-9]{4})/$", "controller": "shop:__main__.show"},
        {"route": "/{tenant}/async/{name}/", "controller": "shop:__main__.show_async"},
    ]
    assert list(shown) == [*expected, *expected, {}]
    assert list(left) == [{}] * 7
