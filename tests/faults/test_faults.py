"""`make faults`: each fault for real, against what the daemon should say and do."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import at_daemon, at_login, at_server, in_network
from tests.faults.complaints import complaints
from tests.faults.fault import Fault
from tests.faults.scene import HBA, Identity, Scene
from tests.faults.witness import witness
from tests.support.proxy import proxy_to
from tests.support.servers import OwnPostgresFactory

FAULTS = (*at_server.FAULTS, *at_login.FAULTS, *in_network.FAULTS, *at_daemon.FAULTS)


def _parameters() -> Iterator[object]:
    for fault in FAULTS:
        yield pytest.param(fault, id=fault.name)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", list(_parameters()))
def test_a_fault(
    fault: Fault, own_postgres: OwnPostgresFactory, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """At most two sessions of ours, nothing stale, no finding lost or doubled, and a recovery with nothing left."""
    server = own_postgres(settings=fault.settings, hba=HBA)
    with contextlib.ExitStack() as stack:
        identity = Identity(tmp_path) if fault.has_tls else None
        proxy = None
        if fault.is_behind_proxy:
            tls = identity.tls if identity else None
            proxy = stack.enter_context(proxy_to("127.0.0.1", server.port, tls))
        scene = Scene(server, tmp_path, timeout=fault.timeout, proxy=proxy, identity=identity)
        if fault.has_small_disk:
            stack.enter_context(_small_disk(scene.record_dir))
        stack.callback(scene.daemon.abandon)
        seen = witness(fault, scene)
        scene.daemon.stop()
    found = complaints(seen)
    record_property(
        "fault", (fault.name, seen.said, seen.said_after, seen.recovered_after, seen.most_sessions, seen.left)
    )
    assert not found, "\n".join(found)
