"""Run the sample service with the password from the file in ORDERS_PASSWORD_FILE."""

import os
import runpy
from pathlib import Path
from urllib.parse import quote, urlsplit


def main() -> None:
    """Add the password to ORDERS_DSN, in this process only, and run the service."""
    dsn = urlsplit(os.environ["ORDERS_DSN"])
    password = quote(Path(os.environ["ORDERS_PASSWORD_FILE"]).read_text().rstrip("\n"), safe="")
    user, _, host = dsn.netloc.partition("@")
    os.environ["ORDERS_DSN"] = dsn._replace(netloc=f"{user}:{password}@{host}").geturl()
    runpy.run_module("pgwatch_sessions.demo.service", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
