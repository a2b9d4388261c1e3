"""Run a program with the restrictions of a systemd unit, on a machine where systemd does not run.

    python sandbox.py FAMILY,… CALL,… PROGRAM …

It uses libseccomp, like systemd, for RestrictAddressFamilies, SystemCallFilter, MemoryDenyWriteExecute and
NoNewPrivileges.
"""

import ctypes
import errno
import mmap
import os
import socket
import sys
from collections.abc import Iterable
from typing import NoReturn

_NO_NEW_PRIVILEGES = 38

_ALLOW = 0x7FFF0000
_PERMISSION = 0x00050000 | errno.EPERM
_FAMILY = 0x00050000 | errno.EAFNOSUPPORT

_EQUAL, _MASKED_EQUAL = 4, 7


class Condition(ctypes.Structure):
    """A condition on one argument of a system call (struct scmp_arg_cmp)."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("masked", ctypes.c_uint64),
    )


#: The action for a system call, its name, and the conditions.
Rule = tuple[int, str, tuple[Condition, ...]]


def main(families: str, calls: str, *command: str) -> NoReturn:
    """Apply the restrictions to this process, and replace it by the program."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # If several filters match, the strictest action counts. The last filter forbids loading more.
    _load(_ALLOW, _other_families({getattr(socket, family) for family in families.split(",")}))
    _load(_ALLOW, _writable_code())
    _load(_PERMISSION, ((_ALLOW, call, ()) for call in calls.split(",")))
    os.execv(command[0], command)  # noqa: S606 - the purpose of this script


def _other_families(families: set[int]) -> Iterable[Rule]:
    others = (family for family in range(socket.AF_VSOCK + 1) if family not in families)
    return ((_FAMILY, "socket", (Condition(0, _EQUAL, family, 0),)) for family in others)


def _writable_code() -> Iterable[Rule]:
    both = mmap.PROT_WRITE | mmap.PROT_EXEC
    yield _PERMISSION, "mmap", (Condition(2, _MASKED_EQUAL, both, both),)
    for call in ("mprotect", "pkey_mprotect"):
        yield _PERMISSION, call, (Condition(2, _MASKED_EQUAL, mmap.PROT_EXEC, mmap.PROT_EXEC),)


def _load(default: int, rules: Iterable[Rule]) -> None:
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    filtering = ctypes.c_void_p(seccomp.seccomp_init(default))
    for action, call, conditions in rules:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # otherwise this processor does not have the system call
            array = (Condition * len(conditions))(*conditions)
            _check(seccomp.seccomp_rule_add_array(filtering, action, number, len(conditions), array))
    _check(seccomp.seccomp_load(filtering))


def _check(code: int) -> None:
    if code:
        sys.exit(f"libseccomp: {os.strerror(-code)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
