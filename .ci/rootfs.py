"""Lay out a root file system with one Python environment, what it loads, and nothing else. Runs inside the image build.

Taken along: the interpreter at its own place, its standard library without what only developers need, the environment,
every shared library that any of their binaries names (`ldd`), root certificates, time zones, the one user. A library
that is loaded by name only while running is not seen: `make image-test` serves a request from the result.
"""

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
ZONES = Path("/usr/share/zoneinfo")
UID = 65532
ELF = b"\x7fELF"

# For developers, for windows on a screen, or a way to install more.
NOT_NEEDED = ("__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests",
              "tkinter", "turtledemo")  # fmt: skip
OTHER_CLOCKS = ("posix", "right")  # the same zones again, and with leap seconds

ACCOUNTS = {
    "etc/passwd": f"root:x:0:0::/:/none\nhip:x:{UID}:{UID}::/var/lib/hip:/none\n",
    "etc/group": f"root:x:0:\nhip:x:{UID}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",  # localhost is /etc/hosts' to say
}


def main(environment: Path, root: Path) -> None:
    """Fill `root`."""
    interpreter = (environment / "bin" / "python").resolve()
    library = Path(sysconfig.get_path("stdlib"))
    for needed in (CERTIFICATES, ZONES / "UTC"):
        if not needed.exists():
            sys.exit(f"{needed} is not in the base image: put ca-certificates and tzdata into it")
    _file(interpreter, root)
    _tree(library, root, NOT_NEEDED)
    _tree(environment, root, ("__pycache__", "tests"))
    _commands(environment / "bin", interpreter, root)
    _tree(ZONES, root, OTHER_CLOCKS)
    _file(CERTIFICATES, root)
    for library_file in sorted(_libraries(_binaries(root))):
        _file(library_file, root)
    for name, content in ACCOUNTS.items():
        (root / name).write_text(content)
    for directory, mode in (("etc/hip", 0o755), ("var/lib", 0o755), ("tmp", 0o1777)):
        (root / directory).mkdir(parents=True, exist_ok=True)
        (root / directory).chmod(mode)
    # Valid whatever the times of the files are: an image whose times are all zero would compile at every start.
    checked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(root, quiet=1, stripdir=str(root), prependdir="/", invalidation_mode=checked):
        sys.exit("not everything could be compiled")


def _tree(source: Path, root: Path, left_out: tuple[str, ...]) -> None:
    target = root / source.relative_to("/")
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)


def _file(source: Path, root: Path) -> None:
    """Copy a file to the name that it is asked for by, whatever links lead to it."""
    target = root / source.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _commands(directory: Path, interpreter: Path, root: Path) -> None:
    """Leave our own command and the interpreter of all that the environment's packages brought."""
    for entry in (root / directory.relative_to("/")).iterdir():
        if entry.name != "hip":
            entry.unlink()
    (root / directory.relative_to("/") / "python").symlink_to(interpreter)


def _binaries(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(len(ELF)) == ELF:
                    yield path


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    """Return every library outside of what was taken along."""
    found = set()
    for binary in binaries:
        told = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)  # noqa: S603, S607
        if "not found" in told.stdout:
            sys.exit(f"{binary} needs what is not there:\n{told.stdout}")
        for line in told.stdout.splitlines():
            words = line.split()
            path = next((word for word in words if word.startswith("/")), None)
            if path is not None:
                found.add(Path(path))
    return {path for path in found if not path.resolve().is_relative_to(sys.argv[2])}


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
