"""The page's style sheet, and the policy that tells browsers to apply this style sheet and to load nothing else."""

from base64 import b64encode
from hashlib import sha256
from importlib import resources

#: Inlined into the page, so that the page needs no second request.
STYLE_SHEET = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")

#: No scripts, images, frames or forms. The style sheet is allowed by its hash.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE_SHEET.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
