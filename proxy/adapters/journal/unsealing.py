"""From an encrypted journal to the plain one: each withheld line is replaced by the line that has its hash.

Decides nothing about truth: what comes out is for `verify`. A sealed line that the clear half does not know was never
acknowledged (a crash came between the two) and is left out.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from proxy.adapters.journal.disk import ANCHOR_FILE, private_directory, sealed_path, segment_path, segments
from proxy.adapters.journal.reading import file_lines
from proxy.audit.chain import LineError
from proxy.audit.merkle import leaf_hash
from proxy.audit.sealing import Opener
from proxy.audit.withheld import is_withheld, read_withheld


@dataclass(slots=True)
class Unsealed:
    """What was found."""

    opened: int = 0  # records
    missing: int = 0  # records whose sealed part is not there: they stay withheld


def unseal(directory: Path, output: Path, opener: Opener) -> Unsealed:
    """Write the plain journal; raise SealError, or FileExistsError where there is one already."""
    private_directory(output)
    if any(output.iterdir()):
        raise FileExistsError(0, "is not empty", str(output))
    count = Unsealed()
    for stream, indices in segments(directory).items():
        for index in indices:
            _segment(directory, output, stream, index, opener, count)
    if (directory / ANCHOR_FILE).exists():
        shutil.copyfile(directory / ANCHOR_FILE, output / ANCHOR_FILE)
    return count


def _segment(directory: Path, output: Path, stream: str, index: int, opener: Opener, count: Unsealed) -> None:
    sealed = sealed_path(directory, stream, index)
    lines = opener.lines(sealed.read_bytes(), stream, index) if sealed.exists() else iter(())
    with segment_path(output, stream, index).open("xb") as file:
        for line in file_lines(segment_path(directory, stream, index)):
            if is_withheld(line) and line.endswith(b"\n"):
                try:
                    _, leaf = read_withheld(line[:-1])
                except LineError:
                    file.write(line)  # the verifier says what is wrong with it
                    continue
                found = next((plain for plain in lines if leaf_hash(plain) == leaf), None)
                count.opened += found is not None
                count.missing += found is None
                line = line if found is None else found + b"\n"
            file.write(line)
