"""A pager of the simplest kind: prints one line for each alert that Alertmanager sends.

python webhook.py --port 9095    (on 127.0.0.1; the path of the address is the receiver's name)
"""

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Bytes of a message; Alertmanager's are a few thousand an alert.
_MAX_MESSAGE = 4 * 2**20


class Webhook(BaseHTTPRequestHandler):
    """One request."""

    timeout = 10  # seconds, between two reads

    def do_POST(self) -> None:
        """Take a message, and print its alerts."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= _MAX_MESSAGE):
            self.send_error(413)
            return
        try:
            alerts = json.loads(self.rfile.read(int(length)))["alerts"]
            lines = [line_of(alert, receiver=self.path.strip("/")) for alert in alerts]
        except (ValueError, LookupError, TypeError, AttributeError):
            self.send_error(400, "no message of Alertmanager's")
            return
        sys.stdout.writelines(lines)
        sys.stdout.flush()
        self._done()

    def do_GET(self) -> None:
        """Say that somebody listens."""
        self._done()

    def _done(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Leave standard output to the alerts, and standard error empty."""


def line_of(alert: Mapping[str, Mapping[str, str]], *, receiver: str) -> str:
    """Return who is told what, in one line whatever names hold."""
    labels, annotations = alert["labels"], alert["annotations"]
    text = (
        f"{datetime.now(UTC):%H:%M:%S} {receiver}: {str(alert['status']).upper()} {labels.get('severity', '')} "
        f"{labels['alertname']}: {annotations.get('summary', '')} "
        f"page: {annotations.get('page_url', '-')} runbook: {annotations.get('runbook_url', '-')}"
    )
    return "".join(character if character.isprintable() else " " for character in text) + "\n"


def main() -> None:
    """Listen until SIGTERM; the first line of output is the address."""
    parser = argparse.ArgumentParser(description="Prints the alerts that Alertmanager sends.")
    parser.add_argument("--port", type=int, default=9095, help="on 127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Webhook) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
