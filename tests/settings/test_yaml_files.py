"""What a YAML file costs to read, and what its plain values mean."""

from pathlib import Path

import pytest

from pgwatch_sessions.settings.errors import SettingsError
from pgwatch_sessions.web.access.web_config import load_web_config
from tests.support.given_settings import errors_of, loaded, written


def bomb(first: str, item: str) -> str:
    """Return ten lines, each of which has the one before ten times."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {item.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, 10)]
    return "\n".join(lines)


BOMBS = {
    "lists": bomb("[lol]", "[{}]"),
    "mappings": bomb("{k: v}", "{{k: [{}]}}"),
    "merges": bomb("{k: v}", "{{<<: [{}]}}"),
    "text": f"a: &a {'x' * 50_000}\nb: [{', '.join(['*a'] * 1000)}]",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_aliases_that_stand_for_too_much_are_refused(tmp_path: Path, kind: str) -> None:
    """Before anything is made of them, in a configuration and in a web configuration."""
    config = written(tmp_path / "config.yaml", BOMBS[kind])
    message = f"{config}: too large: its aliases (*name) stand for more than"
    assert errors_of({"config": config}) == [f"{message} 2048 KiB; write fewer"]
    with pytest.raises(SettingsError) as refused:
        load_web_config(Path(config))
    assert str(refused.value) == f"{message} 128 KiB; write fewer"


def test_a_large_file_without_aliases_is_read(tmp_path: Path) -> None:
    """Two nodes in each of its bytes are not more than it may have."""
    config = written(tmp_path / "config.yaml", f"tools: {{{'a,' * 20_000}}}")
    assert (
        f"{config} line 1: tools: must be a list of patterns, such as `[pg_dump, psql]`; remove it for the default"
        in errors_of({"config": config})
    )


def test_aliases_are_understood(tmp_path: Path) -> None:
    """They save writing the same twice."""
    text = "servers:\n- &a {name: a, dsn: postgresql://a/x}\n- {<<: *a, name: b}\n"
    settings = loaded({"config": written(tmp_path / "config.yaml", text)})
    assert [server.name for server in settings.servers] == ["a", "b"]
    assert settings.servers[0].dsn == settings.servers[1].dsn


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("max_clients: 0100", 100),
        ("max_clients: 100", 100),
        ("interval: 010", 10.0),
        ("interval: 007.5", 7.5),
        ("statements: off", "off"),
        ("statements: false", "off"),  # what a tool of YAML 1.1 makes of `off`
        ("tools: [on, no, 0x10, 1:30]", ("on", "no", "0x10", "1:30")),
        ("record_dir: ~", None),
    ],
)
def test_plain_values_mean_what_they_look_like(tmp_path: Path, text: str, value: object) -> None:
    """Numbers are decimal and words are text, as in YAML 1.2 and in environment variables."""
    settings = loaded({"config": written(tmp_path / "config.yaml", text)})
    assert getattr(settings, text.partition(":")[0]) == value


@pytest.mark.parametrize("text", ["interval: 1:30", "max_clients: 1:30", "max_clients: 0x10", "interval: yes"])
def test_what_only_yaml_1_1_calls_a_number_is_refused(tmp_path: Path, text: str) -> None:
    """It reads 1:30 as 90."""
    (error,) = errors_of({"config": written(tmp_path / "config.yaml", text)})
    assert ": must be a " in error


def test_words_that_yaml_1_1_takes_for_booleans_are_names(tmp_path: Path) -> None:
    """A server may be called `no`, for Norway."""
    settings = loaded({"config": written(tmp_path / "config.yaml", "servers: [{name: no, dsn: postgresql://a/x}]")})
    assert settings.servers[0].name == "no"
