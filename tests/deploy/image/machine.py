"""Build and run containers with Debian's own programs, and leave nothing behind on the machine.

All images and caches are in one folder. The programs create many mounts, and always write to two system folders. So
they run in a separate mount namespace, which disappears with all its mounts when its last process ends.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgwatch_sessions.demo.child_process import child_process
from tests.support.waiting import until

#: Required programs, and their Debian packages.
REQUIRED = {
    "buildah": "buildah",
    "podman": "podman",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
}
_SYSTEM_FOLDERS = (Path("/var/lib/containers"), Path("/run/containers"))
_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_MAX_IMAGE_AGE = "168h"
#: podman's default limits may be above the hard limits of the machine.
_LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A place to build and run containers."""

    #: Contains images and caches, which are kept for the next run.
    folder: Path
    #: A process in the mount namespace.
    pid: int

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line that runs a program in the mount namespace."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--", *map(str, words)]

    def run(self, *words: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run a program, and return its output. AssertionError with all output if it fails."""
        done = self.run_unchecked(*words, env=env)
        assert done.returncode == 0, f"{words[0]}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def run_unchecked(
        self, *words: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program, and return its result, even if it fails."""
        command = self.command(*words)
        return subprocess.run(
            command, env=self.environment(env), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment for a program. TMPDIR contains the caches of builds."""
        return {**os.environ, "PATH": _SEARCH, "TMPDIR": str(self.folder / "tmp"), **(more or {})}

    def buildah(self, *words: str | Path) -> str:
        """Run buildah with this machine's storage."""
        return self.run("buildah", *self._storage(), *words)

    def podman(self, *words: str | Path) -> list[str | Path]:
        """Return the command line of podman with this machine's storage, without systemd."""
        runtime = shutil.which("runc", path=_SEARCH) or "runc"
        # Only fatal errors: otherwise each start logs that systemd is missing for timed health checks.
        options = ("--log-level=fatal", "--runtime", runtime, "--cgroup-manager=cgroupfs", "--events-backend=file")
        return ["podman", *self._storage(), "--tmpdir", self.folder / "run/libpod", *options, *words]

    def podman_run(self, *words: str | Path) -> list[str | Path]:
        """Return the command line that runs a container in the foreground, on the machine's own network."""
        return self.podman("run", "--network=host", "--pull=never", *_LIMITS, *words)

    def tidy(self) -> None:
        """Remove containers of killed runs, and images older than a week, so that the base image stays recent."""
        self.buildah("rm", "--all")
        self.run(*self.podman("rm", "--all", "--force"))
        self.run(*self.podman("image", "prune", "--all", "--force", f"--filter=until={_MAX_IMAGE_AGE}"))

    def _storage(self) -> Sequence[str | Path]:
        return "--root", self.folder / "storage", "--runroot", self.folder / "run/storage"


def reason_to_skip() -> str | None:
    """Return why containers cannot be built and run here, and what to do; None if they can."""
    missing = sorted({package for program, package in REQUIRED.items() if not shutil.which(program, path=_SEARCH)})
    if missing:
        return f"{', '.join(missing)} missing; on Debian: apt install {' '.join(missing)}"
    if os.geteuid() != 0:
        return "building and running containers needs root here"
    run_unchecked = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return "this root may not mount; in a container, run it with --privileged" if run_unchecked.returncode else None


@contextlib.contextmanager
def container_machine(folder: Path) -> Iterator[Machine]:
    """Create the folder and the mount namespace for the length of a block."""
    for part in ("tmp", "storage", "run"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with contextlib.ExitStack() as stack:
        for path in _SYSTEM_FOLDERS:
            stack.enter_context(_existing(path))
        mounts = [f"mount -t tmpfs tmpfs {path}" for path in (*_SYSTEM_FOLDERS, folder / "run")]
        script = " && ".join([*mounts, f"touch {folder}/run/mounted", "exec sleep infinity"])
        command = ["unshare", "--mount", "--propagation=private", "sh", "-c", script]
        holder = stack.enter_context(child_process(command, log=folder / "log"))
        mounted = Path(f"/proc/{holder.pid}/root{folder}/run/mounted")
        until(lambda: mounted.exists() or holder.poll() is not None)
        assert holder.poll() is None, (folder / "log").read_text()
        ready = Machine(folder=folder, pid=holder.pid)
        ready.tidy()
        yield ready


@contextlib.contextmanager
def _existing(path: Path) -> Iterator[None]:
    """Create the folder if it does not exist, and remove it at the end if so."""
    existed = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if not existed:
            with contextlib.suppress(OSError):  # another program uses it now
                path.rmdir()
