"""Fails if a test ran in none of several pytest runs.

python skipped.py RESULTS.xml ...    (JUnit XML)
"""

import sys
from xml.etree import ElementTree as ET


def main() -> int:
    """Name the tests that were only ever skipped; 1 if there are any."""
    ran: set[str] = set()
    skipped: dict[str, str] = {}
    for path in sys.argv[1:]:
        for case in ET.parse(path).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
            name = f"{case.get('classname')}::{case.get('name')}"
            skip = case.find("skipped")
            # An expected failure is reported as skipped too, but it ran.
            if skip is None or skip.get("type") == "pytest.xfail":
                ran.add(name)
            else:
                skipped[name] = skip.get("message") or "no reason given"
    never = {name: reason for name, reason in skipped.items() if name not in ran}
    for name, reason in never.items():
        sys.stderr.write(f"never ran: {name}: {reason}\n")
    sys.stdout.write(f"{len(ran)} tests ran, {len(never)} were only skipped\n")
    return 1 if never or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
