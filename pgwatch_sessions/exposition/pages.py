"""HTML pages: complete in themselves, without scripts, and with every value escaped."""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from html import escape

_STYLE = """
:root { color-scheme: light dark; }
:root { --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --link: #1f5fbf; --ground: #fbfcfd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ee; --soft: #97a3b2; --line: #303a46; --link: #83b2f7; --ground: #14191f; }
}
body { margin: 3rem auto; max-width: 42rem; padding: 0 1.25rem; font: 1rem/1.6 system-ui, sans-serif;
       color: var(--ink); background: var(--ground); }
h1 { margin: 0; font-size: 1.5rem; }
p { margin: .25rem 0 2rem; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 2rem; margin: 0; border-top: 1px solid var(--line); }
dt, dd { margin: 0; padding: .5rem 0; border-bottom: 1px solid var(--line); }
dt { margin-right: -2rem; padding-right: 2rem; font-family: ui-monospace, monospace; }
a { color: var(--link); }
"""

#: Nothing is loaded from anywhere and nothing runs: of all sources only our own style is allowed, by its hash.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An address of the daemon, and in a few words what is there."""

    path: str
    meaning: str


def index_page(*, version: str, links: Iterable[Link]) -> str:
    """Return the page that names the program and leads to the other addresses."""
    rows = "\n".join(
        f'<dt><a href="{escape(link.path)}">{escape(link.path)}</a></dt><dd>{escape(link.meaning)}</dd>'
        for link in links
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pgwatch-sessions</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>pgwatch-sessions</h1>
<p>Version {escape(version)}. Watches the sessions of PostgreSQL servers.</p>
<dl>
{rows}
</dl>
</body>
</html>
"""
