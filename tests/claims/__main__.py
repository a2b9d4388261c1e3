"""`python -m tests.claims [NAME ...]`: try every claim and write docs/claims.md, or try some and print them."""

import argparse
import os
import sys
import time
from datetime import UTC, datetime

from pgwatch_sessions.demo.postgres import running_postgres
from tests.claims.catalogue import CLAIMS
from tests.claims.document import document, machine, section
from tests.claims.laboratory import SERVER_SETTINGS, Laboratory
from tests.claims.running import ROOT

DOCUMENT = ROOT / "docs" / "claims.md"


def main() -> None:
    """Try the claims named by the arguments, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.claims",
        description=(
            "Try claims about connection leaks on a PostgreSQL server. Without a NAME: all of them, in about five "
            "minutes, and write docs/claims.md. With names: only these, and print what came of them."
        ),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(claim.name for claim in CLAIMS)}")
    names = parser.parse_args().names
    if unknown := set(names) - {claim.name for claim in CLAIMS}:
        parser.error(f"unknown claim: {', '.join(sorted(unknown))}")
    load_before, results = os.getloadavg()[0], []
    chosen = [claim for claim in CLAIMS if not names or claim.name in names]
    with running_postgres(settings=SERVER_SETTINGS) as server:
        laboratory = Laboratory(server=server, report=_report)
        for number, claim in enumerate(chosen, start=1):
            _report(f"[{number}/{len(chosen)}] {claim.name}")
            begun = time.monotonic()
            results.append((claim, claim.attempt(laboratory)))
            _report(f"  {results[-1][1].verdict} ({time.monotonic() - begun:.0f} s)")
    if names:
        sys.stdout.write("\n".join(section(claim, outcome) for claim, outcome in results))
        return
    date = datetime.now(UTC).date().isoformat()
    DOCUMENT.write_text(document(results, date=date, machine=machine(load_before=load_before)), encoding="utf-8")
    _report(f"wrote {DOCUMENT.relative_to(ROOT)}")


def _report(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        _report("stopped; docs/claims.md is as it was")
        sys.exit(130)
