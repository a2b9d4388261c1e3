"""The page's style sheet and script, and the policy that lets browsers apply these two and load nothing else."""

from base64 import b64encode
from hashlib import sha256
from importlib import resources


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


#: Inlined into the page, so that the page needs no second request.
STYLE_SHEET = _text("style.css")
#: Copies a statement when its button is clicked. Without it, a click on the statement selects all of it.
SCRIPT = _text("copy.js")

#: No other scripts, no images, frames or forms. Style sheet and script are allowed by their hashes.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {_hash(STYLE_SHEET)}; script-src {_hash(SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
