"""What is logged of logins that failed."""

from collections.abc import Callable

from structlog.testing import capture_logs

from pgwatch_sessions.web.access.failed_logins import FailedLogins


def test_an_address_has_one_line_a_minute() -> None:
    """The first failure at once, further ones together, and those of very many addresses together too."""
    timers: list[tuple[Callable[[str], None], str]] = []
    failed = FailedLogins(lambda _seconds, call, address: timers.append((call, address)))

    def end_minute() -> None:
        ended, timers[:] = timers[:], []
        for call, address in ended:
            call(address)

    with capture_logs() as logs:

        def said() -> list[tuple[str, int]]:
            new, logs[:] = logs[:], []
            return [(entry["address"], entry["failed"]) for entry in new]

        for address in ("10.0.0.1", "10.0.0.2"):
            for _ in range(100):
                failed.add(address)
        assert said() == [("10.0.0.1", 1), ("10.0.0.2", 1)]
        for number in range(1000):
            failed.add(f"2001:db8::{number}")
        assert said() == [*((f"2001:db8::{number}", 1) for number in range(14)), ("other addresses", 1)]
        end_minute()
        assert said() == [("10.0.0.1", 99), ("10.0.0.2", 99), ("other addresses", 985)]
        end_minute()
        assert (said(), timers) == ([], [])
    assert failed.total == 1200
