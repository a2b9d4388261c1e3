"""CPU and memory of processes according to Linux, and child processes for benches."""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# Spawned, because a forked process would start with our memory.
_SPAWN = multiprocessing.get_context("spawn")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def child(target: Callable[..., None], *args: object) -> Iterator[Connection]:
    """Run `target(connection, *args)` in a separate process, and yield the other end of the connection.

    At the end of the block, or of this process, the child reads end of file and must return. If the child dies, our end
    raises EOFError, and its traceback is on standard error.
    """
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=target, args=(theirs, *args), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(timeout=20)
        process.kill()
        process.join()


def result_of(target: Callable[..., None], *args: object) -> Any:
    """Run `target(connection, *args)` in a separate process, and return what it sends."""
    with child(target, *args) as connection:
        return connection.recv()


def cpu_ms(*pids: int) -> float:
    """Return the total CPU time of these processes in milliseconds, after waiting until none of them is running.

    The kernel updates the nanoseconds in schedstat when a thread leaves the CPU.
    """
    _until_asleep(*pids)
    return sum(_schedstat_ms(pid) or _ticks_ms(pid) for pid in pids)


def _schedstat_ms(pid: int) -> float:
    """Return the CPU time of all threads of a process; 0 if the kernel has no such statistics."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e6


def _ticks_ms(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS_PER_SECOND


def _until_asleep(*pids: int) -> None:
    deadline = time.monotonic() + 1
    while any(_stat(pid)[0] == "R" for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.0005)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat, beginning with the third one, the state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def resident_kib(pid: int | str = "self") -> int:
    """Return the resident memory of a process in KiB."""
    return _status_kib(pid, "VmRSS")


def resident_peak_kib(pid: int | str = "self") -> int:
    """Return the peak of resident memory of a process in KiB."""
    return _status_kib(pid, "VmHWM")


def _status_kib(pid: int | str, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
