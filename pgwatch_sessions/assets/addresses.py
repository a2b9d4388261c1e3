"""Fills the user's addresses into rules, their unit tests and dashboards."""

import json
import re
from dataclasses import dataclass
from typing import Any

from pgwatch_sessions.assets.catalogue import Asset

#: An annotation with an address, in a rule or in a test of it; not one that repeats another by a YAML alias.
_ANNOTATION = re.compile(
    r"""^(?P<indent>\ +)(?P<name>page_url|runbook_url):(?P<anchor>\ &\w+)?\ # for example `page_url: &page `
    (?P<value>>-\n(?:(?P=indent)\ +.*\n)+  # lines that are indented more
    |[^*\n].*\n)  # or the rest of this line
    """,
    re.MULTILINE | re.VERBOSE,
)
_RUNBOOK = re.compile(r"/runbooks/(\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Addresses without a slash at the end. None leaves what the file has."""

    #: Of the daemon's page.
    page: str | None = None
    #: Of the runbooks: the page of each is at this address, a slash and its name.
    runbooks: str | None = None
    #: Name or uid of the Grafana data source that the dashboards select.
    datasource: str | None = None


def with_addresses(asset: Asset, addresses: Addresses) -> Asset:
    """Return the file with these addresses. Files without addresses stay as they are."""
    if addresses == Addresses():
        return asset
    if asset.path.startswith("grafana/dashboards/"):
        return Asset(path=asset.path, text=_dashboard(asset.text, addresses))
    if asset.path.startswith("alerts/") and asset.path.endswith(".yml"):
        return Asset(path=asset.path, text=_ANNOTATION.sub(lambda found: _annotation(found, addresses), asset.text))
    return asset


def _annotation(found: re.Match[str], addresses: Addresses) -> str:
    if found["name"] == "page_url":
        address = addresses.page and f"{addresses.page}/"
    else:
        [runbook, *_] = _RUNBOOK.findall(found["value"])
        address = addresses.runbooks and f"{addresses.runbooks}/{runbook}"
    if address is None:
        return found[0]
    # A JSON string is a YAML string.
    return f"{found['indent']}{found['name']}:{found['anchor'] or ''} {json.dumps(address, ensure_ascii=False)}\n"


def _dashboard(text: str, addresses: Addresses) -> str:
    chosen = {"page": addresses.page, "runbooks": addresses.runbooks, "datasource": addresses.datasource}
    dashboard: dict[str, Any] = json.loads(text)
    for variable in dashboard["templating"]["list"]:
        value = chosen.get(variable["name"])
        if value is None:
            continue
        variable["current"] = {"text": value, "value": value, "selected": True}
        if variable["type"] == "textbox":
            variable |= {"query": value, "options": [variable["current"]]}
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"
