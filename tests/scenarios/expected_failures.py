"""The stories that are known to fail, with what is missing. Delete a line when its story passes; a test asks for it."""

from collections.abc import Mapping

EXPECTED_TO_FAIL: Mapping[str, str] = {}
