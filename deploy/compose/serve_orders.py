"""Run the sample service with the password out of the file that ORDERS_PASSWORD_FILE names."""

import os
import runpy
from pathlib import Path
from urllib.parse import quote, urlsplit


def main() -> None:
    """Put the password into ORDERS_DSN, for this process only, and serve."""
    dsn = urlsplit(os.environ["ORDERS_DSN"])
    password = quote(Path(os.environ["ORDERS_PASSWORD_FILE"]).read_text().rstrip("\n"), safe="")
    user, _, place = dsn.netloc.partition("@")
    os.environ["ORDERS_DSN"] = dsn._replace(netloc=f"{user}:{password}@{place}").geturl()
    runpy.run_module("pgwatch_sessions.demo.service", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
