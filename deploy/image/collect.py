"""Copy only what the daemon needs at run time into two folders, which become the layers of the image.

    python3 collect.py ENVIRONMENT TARGET

TARGET/system gets the Python interpreter, its standard library and the shared libraries. TARGET/environment gets the
virtual environment. Run it as root in the builder, on any Debian, with the interpreter that created the environment.
"""

import compileall
import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode

SCRIPT = "pgwatch-sessions"

#: Parts of the standard library for developers, terminals and databases on disk, which the daemon does not need.
EXCLUDED_STDLIB = (
    *("test", "tests", "idlelib", "turtledemo", "turtle.py", "tkinter", "lib2to3", "ensurepip", "venv", "pydoc_data"),
    *("site-packages", "dist-packages", "sitecustomize.py", "config-*", "__phello__", "__pycache__", "macholib"),
    *("curses", "_curses*", "_pyrepl", "readline.*", "sqlite3", "_sqlite3*", "dbm", "_dbm*", "_gdbm*", "nis.*", "*.a"),
    *("_tkinter*", "_test*", "_ctypes_test*", "_xxtestfuzz*", "xx*", "ossaudiodev.*"),
)
#: Parts of the environment that are not needed: files of installers, and commands of libraries.
EXCLUDED_ENVIRONMENT = ("bin", "__pycache__", ".lock", ".gitignore", "CACHEDIR.TAG")

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
#: Users and groups, and how names are resolved.
TEXTS = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnonroot:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
#: Scanners read the Debian version from these.
RELEASE = (Path("/etc/os-release"), Path("/etc/debian_version"))


def main() -> int:
    """Fill the folders. Return 1 if a module does not compile; exit with an error if a library is missing."""
    environment, system, layer = Path(sys.argv[1]), Path(sys.argv[2], "system"), Path(sys.argv[2], "environment")
    create_folders(system)
    copy_environment(environment, layer)
    for path in (Path(sys.executable).absolute(), *interpreter_links(environment)):
        put(path, system)
    stdlib = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(stdlib, below(system, stdlib), symlinks=True, ignore=shutil.ignore_patterns(*EXCLUDED_STDLIB))
    libraries = needed_libraries([Path(sys.executable), *system.rglob("*.so"), *layer.rglob("*.so")])
    for path in (*libraries, *RELEASE, CERTIFICATES):
        put(path, system)
    write_loader_cache(libraries, system)
    write_package_list(system)
    compiled = [compile_below(folder) for folder in (system, layer)]
    for folder in (system, layer):
        set_modes(folder)
    return 0 if all(compiled) else 1


def create_folders(system: Path) -> None:
    """Create the top folders and TEXTS. On Debian, /lib and /lib64 are links into /usr."""
    for top in map(Path, ("/lib", "/lib64")):
        if top.is_symlink():
            below(system, top.resolve()).mkdir(parents=True, exist_ok=True)
            below(system, top).symlink_to(top.readlink())
    below(system, Path("/home/nonroot")).mkdir(parents=True)
    for name, text in TEXTS.items():
        file = system / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


def copy_environment(environment: Path, layer: Path) -> None:
    """Copy the virtual environment with our own command only."""
    copy = below(layer, environment)
    shutil.copytree(environment, copy, symlinks=True, ignore=shutil.ignore_patterns(*EXCLUDED_ENVIRONMENT))
    (copy / "bin").mkdir()
    for name in (SCRIPT, *(path.name for path in environment.glob("bin/python*"))):
        shutil.copy2(environment / "bin" / name, copy / "bin" / name, follow_symlinks=False)


def interpreter_links(environment: Path) -> list[Path]:
    """Return the targets of the environment's links to the interpreter."""
    return [path.readlink() for path in environment.glob("bin/python*") if path.readlink().is_absolute()]


def needed_libraries(programs: Iterable[Path]) -> list[Path]:
    """Return the shared libraries that the programs and libraries need, including the loader."""
    ldd = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    if missing := re.findall(r"^\s*(\S+) => not found", ldd.stdout, re.MULTILINE):
        sys.exit(f"error: no package of the builder has {', '.join(sorted(set(missing)))}")
    found = {Path(path) for path in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", ldd.stdout, re.MULTILINE)}
    [libc] = (path for path in found if path.name == "libc.so.6")
    # glibc loads libgcc_s by name when a thread ends, so ldd does not list it.
    return sorted({*found, libc.with_name("libgcc_s.so.1")})


def write_loader_cache(libraries: Iterable[Path], system: Path) -> None:
    """Write the cache of the loader, which does not search /usr/local/lib by default."""
    folders = sorted({str(path.parent) for path in libraries})
    (system / "etc/ld.so.conf").write_text("\n".join([*folders, ""]))
    subprocess.run(["ldconfig", "-X", "-r", system], check=True)
    shutil.rmtree(system / "var/cache", ignore_errors=True)


def write_package_list(system: Path) -> None:
    """Write the Debian packages of all files for scanners, like distroless images do, and copy their licences."""
    status = system / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package in sorted({"ca-certificates", *owners(system)}):
        name = package.partition(":")[0]
        (status / name).write_text(output_of("dpkg-query", "--status", package) + "\n")
        licence = Path("/usr/share/doc", name, "copyright")
        if licence.exists():
            copy = below(system, licence)
            copy.parent.mkdir(parents=True)
            shutil.copyfile(licence, copy)


def owners(system: Path) -> set[str]:
    """Return the Debian packages that own files in the folder."""
    paths = ["/" + str(path.relative_to(system)) for path in system.rglob("*") if not path.is_dir()]
    # Packages of bookworm still list files under /lib, which is a link to /usr/lib.
    names = itertools.chain(paths, (path.removeprefix("/usr") for path in paths))
    found = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False)
    return set(re.findall(r"^(\S+): /", found.stdout, re.MULTILINE))


def compile_below(folder: Path) -> bool:
    """Compile all modules. Python will not compare them with their sources, because those cannot change."""
    return bool(
        compileall.compile_dir(
            folder,
            maxlevels=30,
            quiet=1,
            workers=0,
            stripdir=str(folder),
            prependdir="/",
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )
    )


def set_modes(folder: Path) -> None:
    """Make everything readable for all and writable for root only. Modules are not executable."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            program = os.access(path, os.X_OK) and path.suffix != ".py"
            path.chmod(0o755 if path.is_dir() or program else 0o644)


def put(path: Path, system: Path) -> None:
    """Copy a file to the same path in the folder. If it is a link, also copy its target."""
    target = below(system, path.parent.resolve() / path.name)
    if target.is_symlink() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target, follow_symlinks=False)
    if path.is_symlink():
        put(path.parent / path.readlink(), system)


def below(folder: Path, path: Path) -> Path:
    """Return the path in the folder for an absolute path."""
    return folder / path.relative_to("/")


def output_of(*command: str) -> str:
    """Return the output of a command. CalledProcessError if it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
