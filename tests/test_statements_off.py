"""`statements: off` in a daemon that watches tagged statements: neither texts nor tags are anywhere."""

import gzip
import json
from pathlib import Path

from tests.support.daemons import daemon
from tests.support.servers import Database
from tests.support.situations import idle_in_transaction
from tests.support.waiting import until

#: Every tag that names a site, a line of code or an application.
TAGS = (
    "application='canaryapp',route='/canaryroute',controller='canarycontroller',job='canaryjob',file='canary.py',"
    "line='7',func='canaryfunc',framework='canaryframework'"
)
PAGES = ("/", "/metrics", "/api/v1/leaks", "/api/v1/sessions", "/api/v1/diagnosis", "/servers/db")


def contents(folder: Path) -> str:
    """Return what is in the files of a folder; a recording that grows has no end mark yet."""
    texts = []
    for file in folder.iterdir():
        with gzip.open(file) as lines:
            texts += [line.decode() for line in lines]
    return "".join(texts)


def test_no_text_and_no_tag_is_anywhere(database: Database, tmp_path: Path) -> None:
    """In metrics, documents, pages, recordings, the log and the kept state. The finding itself is there."""
    records, kept = tmp_path / "records", tmp_path / "kept"
    records.mkdir()
    options = ("--name", "db", "--statements", "off", "--hold-limit", "1s")
    dsn = database.dsn(application_name="")
    with (
        idle_in_transaction(dsn, f"SELECT relname AS canaryname FROM pg_class /*{TAGS}*/"),
        daemon(*options, "--record-dir", str(records), "--state-dir", str(kept), dsn=database.dsn()) as watching,
    ):
        until(lambda: watching.events("leak_opened"))
        until(lambda: list(kept.glob("*.gz")))
        shown = {path: watching.get(path).text for path in PAGES}
        log = watching.log
        assert "(statement)" in shown["/metrics"]
        assert "(statement)" in json.dumps(watching.events("leak_opened"))
        shown["log"] = log.read_text()
    shown |= {"recording": contents(records), "kept state": contents(kept)}
    assert all(shown.values())
    assert [place for place, text in shown.items() if "canary" in text] == []
