"""Receive Alertmanager's notifications, and print one line for each alert.

python webhook.py --port 9095    (on 127.0.0.1; the path of the URL is the name of the receiver)
"""

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Maximum bytes of a notification; Alertmanager sends a few thousand per alert.
_MAX_NOTIFICATION = 4 * 2**20


class Webhook(BaseHTTPRequestHandler):
    """Handles one request."""

    timeout = 10  # seconds between two reads

    def do_POST(self) -> None:
        """Print the alerts of a notification."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= _MAX_NOTIFICATION):
            self.send_error(413)
            return
        try:
            alerts = json.loads(self.rfile.read(int(length)))["alerts"]
            lines = [line_of(alert, receiver=self.path.strip("/")) for alert in alerts]
        except (ValueError, LookupError, TypeError, AttributeError):
            self.send_error(400, "not a notification of Alertmanager")
            return
        sys.stdout.writelines(lines)
        sys.stdout.flush()
        self._done()

    def do_GET(self) -> None:
        """Answer the health check."""
        self._done()

    def _done(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print no access log, only alerts."""


def line_of(alert: Mapping[str, Mapping[str, str]], *, receiver: str) -> str:
    """Return a line with the receiver and the alert. Characters that are not printable become spaces."""
    labels, annotations = alert["labels"], alert["annotations"]
    text = (
        f"{datetime.now(UTC):%H:%M:%S} {receiver}: {str(alert['status']).upper()} {labels.get('severity', '')} "
        f"{labels['alertname']}: {annotations.get('summary', '')} "
        f"page: {annotations.get('page_url', '-')} runbook: {annotations.get('runbook_url', '-')}"
    )
    return "".join(character if character.isprintable() else " " for character in text) + "\n"


def main() -> None:
    """Print the address, and serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="Print the alerts that Alertmanager sends.")
    parser.add_argument("--port", type=int, default=9095, help="port on 127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Webhook) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
