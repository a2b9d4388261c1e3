"""Runs one command that must not outlive the program that asked for it.

    python -I -S supervisor.py [options] [COMMAND ...]

The asking program holds the other end of this process's standard input and writes nothing to it. End of file means that
the asking program has ended, for whatever reason: then the supervisor stops the command, kills everything that
the command has started, and removes the folders. Without a command it waits for end of file and removes the folders.

It writes the command's process id (its own without a command) to standard output. The command's output goes to standard
error. The exit code is the command's, 128 + n if signal n ended it, 127 if it could not be started.

Facts about Linux that it relies on; elsewhere the first two do not exist and their protection is missing:
* PR_SET_PDEATHSIG ends the command if the supervisor is killed. A change of user clears it, so it is set after that.
* PR_SET_CHILD_SUBREAPER makes orphans of the command our children, so that they can be found and reaped.
  PostgreSQL's backends lead their own process groups: killing the command's group would miss them.
* A stopped (SIGSTOP) process holds back every signal but SIGKILL and SIGCONT.
"""

import argparse
import contextlib
import ctypes
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the command, remove the folders, and return the exit code."""
    parser = argparse.ArgumentParser(description="Run a command that ends when standard input does.")
    parser.add_argument("--stop-signal", type=int, default=signal.SIGTERM, help="a number")
    parser.add_argument("--patience", type=float, default=5.0, help="seconds from the stop signal to SIGKILL")
    parser.add_argument("--user", help="run the command as this user, in its group alone")
    parser.add_argument("--remove", action="append", default=[], type=Path, help="a folder to remove at the end")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        if options.command:
            return supervise(options.command, options.user, options.stop_signal, options.patience)
        wait_for_end_of_input()
        return 0
    finally:
        for folder in options.remove:
            remove(folder, options.patience)


def supervise(command: list[str], user: str | None, stop_signal: int, patience: float) -> int:
    """Run the command until it ends, our input ends or a signal asks us to end; return its exit code."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signals = pipe_of_signals(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    try:
        process = start(command, user, stop_signal)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error}\n")
        return 127
    report_pid(process.pid)
    while process.poll() is None:
        readable, _, _ = select.select([sys.stdin, signals], [], [])
        if sys.stdin in readable or set(os.read(signals, 1024)) - {signal.SIGCHLD}:
            break
    code = stop(process, stop_signal, patience)
    kill_orphans()
    return code if code >= 0 else 128 - code


def start(command: list[str], user: str | None, stop_signal: int) -> subprocess.Popen[bytes]:
    """Start the command, as the user if one is given; OSError if that fails."""
    supervisor = os.getpid()

    def end_with_supervisor() -> None:
        prctl(PR_SET_PDEATHSIG, stop_signal)
        if os.getppid() != supervisor:
            os._exit(127)

    account = pwd.getpwnam(user) if user else None
    return subprocess.Popen(  # noqa: S603 - the command is the asking program's
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=() if account else None,
        preexec_fn=end_with_supervisor,  # noqa: PLW1509 - there is one thread here
    )


def stop(process: subprocess.Popen[bytes], stop_signal: int, patience: float) -> int:
    """Stop the command if it still runs; return its code, negative for a signal."""
    if process.poll() is None:
        process.send_signal(stop_signal)
        for pid in descendants(os.getpid()):
            send_signal(pid, signal.SIGCONT)
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def kill_orphans() -> None:
    """Kill and reap every process that the command left behind."""
    while True:
        for pid in descendants(os.getpid()):
            send_signal(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def descendants(ancestor: int) -> list[int]:
    """Return all processes below this one; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The second field is a name that may hold spaces and parentheses; the parent is the second after it.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [ancestor]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found[1:]


def send_signal(pid: int, number: int) -> None:
    """Signal a process, unless it has ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def pipe_of_signals(*signals: signal.Signals) -> int:
    """Return a descriptor from which each of these signals is read as one byte, its number."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in signals:
        signal.signal(number, lambda *_: None)
    return reader


def wait_for_end_of_input() -> None:
    """Ignore signals and wait for end of file: after a signal to all, processes that use the folders may still run."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    report_pid(os.getpid())
    sys.stdin.read()


def report_pid(pid: int) -> None:
    """Tell the asking program the process id, if it still runs."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"%d\n" % pid)


def remove(folder: Path, patience: float) -> None:
    """Remove the folder; try again while processes still write into it."""
    deadline = time.monotonic() + patience
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process, on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    sys.exit(main())
