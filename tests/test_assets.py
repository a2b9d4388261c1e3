"""`pgwatch-sessions assets` and `role-sql` as processes, and what they write."""

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgwatch_sessions.assets.addresses import Addresses, with_addresses
from pgwatch_sessions.assets.catalogue import GROUPS, ROLE_SQL, assets_of, read_asset
from pgwatch_sessions.demo.postgres import Postgres
from tests.support.alert_rules import load_yaml, needs_promtool, run_tool
from tests.support.programs import finished

ROOT = Path(__file__).parents[1]
PAGE = "https://db-monitor.example:9488"
WIKI = "https://wiki.example/pages"
#: Folders of the project that only developers need, or that a checkout is needed for.
NOT_SHIPPED = {"deploy/compose", "deploy/image", "deploy/kubernetes", "grafana"}


def written(folder: Path) -> dict[str, str]:
    """Return the text of each file in the folder by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


def test_every_folder_of_the_project_is_an_asset_or_is_left_out_on_purpose() -> None:
    """A new folder under alerts, config, deploy or grafana needs a decision."""
    folders = {
        str(path.parent.relative_to(ROOT))
        for top in ("alerts", "config", "deploy", "grafana")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected = {each for each in folders if not any(f"{each}/".startswith(f"{left}/") for left in NOT_SHIPPED)}
    expected |= {each for each in folders if each.startswith("grafana/")}
    assert {folder for group in GROUPS for folder in group.folders} == expected


def test_the_list_has_every_name_with_its_purpose() -> None:
    """With a name, it has that group's files."""
    overview = finished("assets")
    assert (overview.returncode, overview.stderr) == (0, "")
    for group in GROUPS:
        assert re.search(rf"^{group.name} +\d+ +\d+\.\d  {group.purpose}$", overview.stdout, re.MULTILINE)
    files = finished("assets", "rules", "systemd").stdout.splitlines()
    assert [line.split()[0] for line in files[1:]] == [
        "alerts/alert_rules.yml",
        "alerts/recording_rules.yml",
        "deploy/systemd/README.md",
        "deploy/systemd/pgwatch-sessions.env",
        "deploy/systemd/pgwatch-sessions.service",
    ]


def test_everything_is_written_as_it_is_in_the_project(tmp_path: Path) -> None:
    """The folders are the same, so that links and paths between the files work. Each file is reported."""
    folder = tmp_path / "new" / "folder"
    ended = finished("assets", "--out", str(folder))
    assert (ended.returncode, ended.stderr) == (0, "")
    files = written(folder)
    assert len(files) > 40
    assert ended.stdout.splitlines() == [
        f"wrote      {folder / asset.path}" for group in GROUPS for asset in assets_of(group)
    ]
    for path, text in files.items():
        assert text == (ROOT / path).read_text(encoding="utf-8"), path


def test_changed_files_are_not_overwritten_without_force(tmp_path: Path) -> None:
    """If one file was changed, nothing at all is written. Files with the same content do no harm."""
    arguments = ("assets", "rules", "config", "--out", str(tmp_path))
    assert finished(*arguments).returncode == 0
    again = finished(*arguments)
    assert (again.returncode, set(re.findall(r"^\w+", again.stdout, re.MULTILINE))) == (0, {"unchanged"})
    changed, missing = tmp_path / "alerts/alert_rules.yml", tmp_path / "config/pgwatch-sessions.example.yaml"
    changed.write_text("groups: []\n")
    missing.unlink()
    refused = finished(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{changed}: the file exists with other content, and nothing was written" in refused.stderr
    assert "--force" in refused.stderr
    assert changed.read_text() == "groups: []\n"
    assert not missing.exists()
    forced = finished(*arguments, "--force")
    assert (forced.returncode, forced.stdout.count("wrote ")) == (0, 2)
    assert changed.read_text() == (ROOT / "alerts/alert_rules.yml").read_text()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nonsense",), "invalid choice: 'nonsense'"),
        (("--out", "/proc/nowhere"), "/proc/nowhere"),
        (("--page-url", PAGE), "need --out DIR"),
        (("--out", "x", "--page-url", "db-monitor:9488"), "'db-monitor:9488' is not an address"),
        (("--out", "x", "--runbook-url", "http://a b"), "is not an address"),
    ],
)
def test_wrong_usage_is_exit_2(arguments: tuple[str, ...], error: str) -> None:
    """The error says what is wrong and what to give instead."""
    ended = finished("assets", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert error in ended.stderr
    assert "Traceback" not in ended.stderr


@needs_promtool
@pytest.mark.parametrize(
    ("options", "page", "runbooks"),
    [
        (("--page-url", f"{PAGE}/"), PAGE, f"{PAGE}/runbooks"),
        (("--runbook-url", WIKI), None, WIKI),
    ],
    ids=["page", "runbooks"],
)
def test_alerts_link_to_the_given_addresses(
    options: tuple[str, ...], page: str | None, runbooks: str, tmp_path: Path
) -> None:
    """Every alert does, and the unit tests of the rules expect it: promtool accepts what was written."""
    assert finished("assets", "rules", "rule-tests", "--out", str(tmp_path), *options).returncode == 0
    alerts = tmp_path / "alerts"
    assert run_tool("promtool", "check", "rules", *alerts.glob("*.yml")).returncode == 0
    tested = run_tool("promtool", "test", "rules", *sorted((alerts / "tests").glob("*.yml")))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    [group] = load_yaml(alerts / "alert_rules.yml")["groups"]
    for rule in group["rules"]:
        if "alert" in rule:
            assert rule["annotations"]["runbook_url"] == f"{runbooks}/{rule['alert']}"
            if page and "page_url" in rule["annotations"]:
                assert rule["annotations"]["page_url"] == f"{page}/"


def variables(text: str) -> dict[str, Any]:
    """Return a dashboard's variables by name."""
    return {variable["name"]: variable for variable in json.loads(text)["templating"]["list"]}


def test_dashboards_have_the_given_addresses_and_data_source() -> None:
    """Only these variables change."""
    addresses = Addresses(page=PAGE, runbooks=WIKI, datasource="Mimir")
    [group] = [group for group in GROUPS if group.name == "dashboards"]
    for asset in assets_of(group):
        if not asset.path.endswith(".json"):
            assert with_addresses(asset, addresses) == asset
            continue
        before, after = json.loads(asset.text), json.loads(with_addresses(asset, addresses).text)
        for name, value in (("page", PAGE), ("runbooks", WIKI), ("datasource", "Mimir")):
            variable = variables(json.dumps(after))[name]
            assert variable["current"]["value"] == value
            if variable["type"] == "textbox":
                assert variable["query"] == variable["options"][0]["value"] == value
        del before["templating"], after["templating"]
        assert before == after


def test_role_sql_creates_the_role(postgres: Postgres) -> None:
    """The output is the script in deploy/sql, which psql reads from standard input."""
    printed = finished("role-sql")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout == (ROOT / ROLE_SQL).read_text() == read_asset(ROLE_SQL)
    with psycopg.connect(postgres.dsn()) as connection:
        connection.execute(printed.stdout.encode())
        assert connection.execute(
            "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'pgwatch_sessions'"
        ).fetchall() == [(3,)]
        connection.rollback()
