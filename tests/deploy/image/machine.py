"""Builds and runs containers with Debian's own programs, and leaves nothing of them on the machine.

All that they keep lies in one folder. They mount a lot, and they write to two folders of the system whatever they are
told; so they work in a mount namespace of their own, which goes, with all mounts, when its last process has ended.
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

#: Program and Debian package.
WANTED = {
    "buildah": "buildah",
    "podman": "podman",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
}
_OF_THE_SYSTEM = (Path("/var/lib/containers"), Path("/run/containers"))
_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_KEPT = "168h"
#: The hard limits of the machine may be lower than what podman asks for by default.
_LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where containers are built and run."""

    #: Holds images and caches; kept for the next time.
    folder: Path
    #: A process in the mount namespace.
    pid: int

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line that runs a program in the namespace, in its root folder."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--", *map(str, words)]

    def run(self, *words: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run a program to its end and return what it prints; AssertionError with all it said if it fails."""
        done = self.tried(*words, env=env)
        assert done.returncode == 0, f"{words[0]}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def tried(self, *words: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, whichever that is."""
        command = self.command(*words)
        return subprocess.run(
            command, env=self.environment(env), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a program: caches of builds lie in TMPDIR."""
        return {**os.environ, "PATH": _SEARCH, "TMPDIR": str(self.folder / "tmp"), **(more or {})}

    def buildah(self, *words: str | Path) -> str:
        """Run buildah on our images."""
        return self.run("buildah", *self._storage(), *words)

    def podman(self, *words: str | Path) -> list[str | Path]:
        """Return the command line of podman on our images, without a systemd."""
        runtime = shutil.which("runc", path=_SEARCH) or "runc"
        # Of lesser errors there is one at each start: no systemd to run health checks by the clock.
        options = ("--log-level=fatal", "--runtime", runtime, "--cgroup-manager=cgroupfs", "--events-backend=file")
        return ["podman", *self._storage(), "--tmpdir", self.folder / "run/libpod", *options, *words]

    def podman_run(self, *words: str | Path) -> list[str | Path]:
        """Return the command line that runs a container in the foreground, on the machine's own network."""
        return self.podman("run", "--network=host", "--pull=never", *_LIMITS, *words)

    def tidy(self) -> None:
        """Remove what runs that were killed have left, and images of last week; so the base is never older."""
        self.buildah("rm", "--all")
        self.run(*self.podman("rm", "--all", "--force"))
        self.run(*self.podman("image", "prune", "--all", "--force", f"--filter=until={_KEPT}"))

    def _storage(self) -> Sequence[str | Path]:
        return "--root", self.folder / "storage", "--runroot", self.folder / "run/storage"


def obstacle() -> str | None:
    """Return why no container can be built and run here, and what to do; None if nothing is in the way."""
    missing = sorted({package for program, package in WANTED.items() if not shutil.which(program, path=_SEARCH)})
    if missing:
        return f"{', '.join(missing)} missing; on Debian: apt install {' '.join(missing)}"
    if os.geteuid() != 0:
        return "building and running containers needs root here"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return "this root may not mount; in a container, run it with --privileged" if tried.returncode else None


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Provide the folder and the namespace until the block ends."""
    for part in ("tmp", "storage", "run"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with contextlib.ExitStack() as stack:
        for path in _OF_THE_SYSTEM:
            stack.enter_context(_existing(path))
        mounts = [f"mount -t tmpfs tmpfs {path}" for path in (*_OF_THE_SYSTEM, folder / "run")]
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
    """Make the folder if it is not there, and remove it then."""
    there = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if not there:
            with contextlib.suppress(OSError):  # somebody else has begun to use it
                path.rmdir()
