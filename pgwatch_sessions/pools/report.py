"""All pools of this process and their borrowers, as JSON or as text."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pgwatch_sessions.pools.histogram import Durations
from pgwatch_sessions.pools.instrument import PoolHandle, handles
from pgwatch_sessions.pools.ledger import Borrowed
from pgwatch_sessions.pools.sites import Site


def report(older_than: float = 0.0) -> dict[str, Any]:
    """Return what can be written as JSON: every pool, and who has had a connection for at least so many seconds."""
    return {"pid": os.getpid(), "pools": [_pool(handle, older_than) for handle in handles()]}


def _pool(handle: PoolHandle, older_than: float) -> dict[str, Any]:
    now = handle.snapshot()
    return {
        "name": now.name,
        "kind": now.kind,
        "used": now.used,
        "idle": now.idle,
        "pending": now.pending,
        "overflow": now.overflow,
        "max": now.limits.max,
        "idle_max": now.limits.idle_max,
        "idle_min": now.limits.idle_min,
        "timed_out": now.timed_out,
        "cancelled_waits": now.cancelled_waits,
        "failed_waits": now.failed_waits,
        "collected": now.collected,
        "detached": now.detached,
        "detached_open": now.detached_open,
        "create_time": _durations(now.create_time),
        "wait_time": _durations(now.wait_time),
        "use_time": _durations(now.use_time),
        "borrowed": [_borrowed(each) for each in handle.borrowed(older_than)],
    }


def _durations(durations: Durations) -> dict[str, float]:
    return {"count": durations.count, "sum_seconds": round(durations.sum, 6)}


def _borrowed(borrowed: Borrowed) -> dict[str, Any]:
    return {
        "age_seconds": round(borrowed.age, 3),
        "site": None if borrowed.site is None else _site(borrowed.site),
        "stack": [_site(site) for site in borrowed.stack],
        "tags": dict(borrowed.tags),
        "detached": borrowed.detached,
    }


def _site(site: Site) -> dict[str, Any]:
    return {"file": site.file, "line": site.line, "function": site.function}


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines of text that show a report to a person."""
    if not document["pools"]:
        yield f"process {document['pid']}: no pool is instrumented"
    for pool in document["pools"]:
        limit = "no limit" if pool["max"] is None else f"at most {pool['max']}"
        yield (
            f"{pool['name']} ({pool['kind']}, {limit}): {pool['used']} used, {pool['idle']} idle, "
            f"{pool['pending']} waiting, {pool['timed_out']} timed out, "
            f"{pool['collected']} returned by the garbage collector"
        )
        for borrowed in pool["borrowed"]:
            tags = ", ".join(f"{key}={value}" for key, value in borrowed["tags"].items())
            detached = ", detached" if borrowed["detached"] else ""
            yield (
                f"  {borrowed['age_seconds']:9.1f} s  {_text(borrowed['site'])}{f' ({tags})' if tags else ''}{detached}"
            )
            yield from (f"               {_text(site)}" for site in borrowed["stack"][1:])


def _text(site: Mapping[str, Any] | None) -> str:
    return "an unknown line" if site is None else f"{site['file']}:{site['line']} in {site['function']}"
