"""`make image`: build the container image with buildah, without a network and the same bytes each time.

The wheels of the lock are fetched first, by this Python's pip with its own settings (mirrors, CAs), and mounted: the
build itself reaches nothing. Needs Linux and root, or a user whom buildah serves without.
    PYTHON_IMAGE  the base, by digest; without it a minimal Debian is made here, once, by mmdebstrap
    IMAGE         the name of the result
With --no-cache no layer of an earlier build is used.
Exit codes: 0 built, 2 something is missing and said.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / ".cache" / "wheels"
LOCKS = ("requirements/core.txt", "requirements/build.txt")
IMAGE = os.environ.get("IMAGE", "localhost/hip")
BASE = "localhost/hip-base:bookworm"  # Python 3.11
PACKAGES = "python3,python3-venv,ca-certificates,tzdata"
TOOLS = {"buildah": "buildah", "podman": "podman", "mmdebstrap": "mmdebstrap"}  # command -> Debian package


def missing() -> list[str]:
    """Return the Debian packages whose commands are not here."""
    needed = {command for command in TOOLS if command != "mmdebstrap" or not os.environ.get("PYTHON_IMAGE")}
    return sorted(TOOLS[command] for command in needed if shutil.which(command) is None)


def build(tag: str, *, cache: bool = True) -> None:
    """Build the image under a name."""
    base = _base()
    _wheels(base)
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    _run(
        "buildah", "bud", "--isolation", "oci", "--network", "none", "--timestamp", "0",
        # Docker's format has HEALTHCHECK, and the random id of the container that built it.
        "--format", "oci",
        *([] if cache else ["--no-cache"]),
        "--volume", f"{WHEELS}:/wheels:ro",
        "--build-arg", f"PYTHON_IMAGE={base}", "--build-arg", "PIP_NO_INDEX=1", "--build-arg", "PIP_FIND_LINKS=/wheels",
        "--label", f"org.opencontainers.image.version={version}",
        "--tag", tag, ".",
    )  # fmt: skip


def _base() -> str:
    named = os.environ.get("PYTHON_IMAGE")
    if named:
        if "@sha256:" not in named and not named.startswith("localhost/"):
            sys.exit("PYTHON_IMAGE must be named by its digest: name@sha256:…")
        return named
    if subprocess.run(["podman", "image", "exists", BASE], check=False).returncode:  # noqa: S603, S607 - our own words
        archive = ROOT / ".cache" / "base.tar"
        archive.parent.mkdir(exist_ok=True)
        _run("mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(archive))
        _run("podman", "import", "--quiet", str(archive), BASE)
        archive.unlink()
    return BASE


def _wheels(base: str) -> None:
    """Fetch what the locks name, for the Python of the base image."""
    ask = "import platform; print(platform.python_version())"
    told = subprocess.run(  # noqa: S603 - our own words
        ["podman", "run", "--rm", "--network", "none", base, "python3", "-c", ask],  # noqa: S607
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    version = told.stdout.strip()
    WHEELS.mkdir(parents=True, exist_ok=True)
    for lock in LOCKS:
        fitting = WHEELS / Path(lock).name
        fitting.write_text("\n".join(_fitting((ROOT / lock).read_text(), version)))
        _run(
            sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary", ":all:", "--require-hashes",
            "--python-version", version, "--requirement", str(fitting), "--dest", str(WHEELS),
        )  # fmt: skip


def _fitting(lock: str, version: str) -> Iterator[str]:
    """Yield a lock's entries for a version of Python, without their markers: pip would ask its own version."""
    for entry in re.findall(r"^\S[^\n]*(?:\n    --hash=[^\n]*)*", lock, re.MULTILINE):
        requirement, *hashes = entry.split("\n")
        named = Requirement(requirement.removesuffix("\\"))
        if named.marker is None or named.marker.evaluate({"python_full_version": version}):
            yield "\n".join([f"{named.name}{named.specifier} \\", *hashes])


def _run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)  # noqa: S603 - our own words


if __name__ == "__main__":
    os.environ.setdefault("CONTAINERS_CONF", str(ROOT / ".ci" / "containers.conf"))
    if lacking := missing():
        print(f"missing: {', '.join(lacking)}\n    apt-get install --no-install-recommends {' '.join(lacking)} runc")
        sys.exit(2)
    try:
        build(IMAGE, cache="--no-cache" not in sys.argv)
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{failed.cmd[0]} ended with {failed.returncode}")
    print(IMAGE)
