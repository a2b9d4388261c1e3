import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.settings.quantities import duration_text, read_duration, read_size, size_text
from tests.support.given_settings import errors_of, loaded


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9488", "127.0.0.1", 9488),
        ("localhost:0", "localhost", 0),
        ("[::1]:9488", "::1", 9488),
        (":9488", "", 9488),
    ],
)
def test_an_address_is_host_and_port(text: str, host: str, port: int) -> None:
    """It is written back as it was given."""
    listen = loaded({"listen": text}).listen
    assert (listen.host, listen.port, str(listen)) == (host, port, text)


@pytest.mark.parametrize("value", ["9488", "127.0.0.1", "127.0.0.1:", "h:65536", "::1:9488", "[x]:1", "a b:1", 9488])
def test_an_address_without_host_and_port_is_refused(value: object) -> None:
    """The error names the option."""
    (error,) = errors_of({"listen": value})
    assert error.startswith("--listen: ")


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("10s", 10, "10s"),
        ("5m", 300, "5m"),
        ("1h", 3600, "1h"),
        ("700ms", 0.7, "700ms"),
        ("1.5", 1.5, "1500ms"),
        ("90", 90, "90s"),
        (0, 0, "0s"),
    ],
)
def test_a_duration_has_a_unit(text: object, seconds: float, written: str) -> None:
    """A number without unit is seconds. It is written in the largest unit of which it is a whole multiple."""
    assert read_duration(text) == seconds
    assert duration_text(seconds) == written


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1d", "1 2", "1h30m", "\u0661s", "inf", "nan", float("inf"), -1, True, None, []]
)
def test_anything_else_is_no_duration(text: object) -> None:
    """A value that is not a number with a known unit is refused."""
    with pytest.raises(ValueError, match="must be a duration"):
        read_duration(text)


@given(st.floats(min_value=0.001, max_value=1e9))
def test_a_written_duration_parses_to_the_same_number(seconds: float) -> None:
    """Writing and parsing changes no duration."""
    assert read_duration(duration_text(seconds)) == seconds


@given(st.integers(0, 10**12))
def test_written_milliseconds_and_bytes_parse_to_the_same_number(number: int) -> None:
    """Whole milliseconds and bytes are exact."""
    assert read_duration(duration_text(number / 1000)) == number / 1000
    assert read_size(size_text(number)) == number
