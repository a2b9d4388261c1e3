"""The stories that are known to fail, with what is missing. Delete a line when its story passes; a test asks for it."""

from collections.abc import Mapping

_HIDDEN = "four sessions lost in half an hour, and then a peak after which nothing is opened any more"

EXPECTED_TO_FAIL: Mapping[str, str] = {
    "leaks without a reset 3": _HIDDEN,
}
