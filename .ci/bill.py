"""The bill of materials of the image, CycloneDX JSON, from what is in it and not from what should be.

Runs inside the image build, after `.ci/rootfs.py`: every Python package by its metadata, the interpreter, and for each
file outside of the environment the Debian package that it came from. The same contents make the same bytes: neither
time nor serial number. https://cyclonedx.org/docs/1.6/json/
"""

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

OURS = "hardened-inference-proxy"
TARGET = "usr/share/sbom/hip.cdx.json"


def main(environment: Path, root: Path) -> None:
    """Write the bill into `root`."""
    installed = list(_python(root / environment.relative_to("/")))
    every = {name: _part(name, version, f"pkg:pypi/{name}@{version}", terms) for name, version, terms in installed}
    ours = every.pop(OURS)
    parts = list(every.values())
    parts += [_part(name, version, f"pkg:deb/debian/{name}@{quote(version)}") for name, version in _debian(root)]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {**ours, "type": "application"},
            "properties": [{"name": "python", "value": platform.python_version()}],
        },
        "components": sorted(parts, key=lambda part: str(part["bom-ref"])),
    }
    target = root / TARGET
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill, indent=1) + "\n")


def _part(name: str, version: str, purl: str, terms: str = "") -> dict[str, object]:
    licences = {"licenses": [{"license": {"name": terms}}]} if terms else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **licences}


def _python(environment: Path) -> Iterator[tuple[str, str, str]]:
    for library in sorted(environment.glob("lib/python*/site-packages")):
        for package in metadata.distributions(path=[str(library)]):
            said = package.metadata
            terms = said.get("License-Expression") or said.get("License") or ""
            yield re.sub(r"[-_.]+", "-", said["Name"]).lower(), package.version, terms.split("\n")[0][:80]


def _debian(root: Path) -> set[tuple[str, str]]:
    """Return the packages that files outside of the environment came from; without dpkg nobody can tell."""
    if shutil.which("dpkg-query") is None:
        return set()
    files = {f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    files = {file for file in files if not file.startswith("/opt/")}
    # /lib is a link to /usr/lib, and a package may know its files by either name.
    asked = sorted(files | {file.removeprefix("/usr") for file in files} | {f"/usr{file}" for file in files})
    told = subprocess.run(["dpkg-query", "--search", *asked], capture_output=True, text=True, check=False)  # noqa: S603, S607
    names = {
        name.partition(":")[0] for line in told.stdout.splitlines() for name in line.rpartition(": ")[0].split(", ")
    }
    shown = subprocess.run(  # noqa: S603
        ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\\n", *sorted(names)],  # noqa: S607
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {(name, version) for name, _, version in (line.partition(" ") for line in shown.stdout.splitlines())}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
