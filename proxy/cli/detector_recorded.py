"""`hip detector fit --from-recorded`: inputs that the proxy recorded, opened with the private key that it has not.

Nothing is written in clear: what is read goes into the fit. What does not count is told, never shown.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from proxy.adapters.password import read_password
from proxy.adapters.samples import MAX_READ, read_files
from proxy.audit.sealing import Opener, SealError
from proxy.cli.detector_input import decoded, read, refused
from proxy.detection.metadata import Kind
from proxy.detection.recorded import Collected
from proxy.detection.rows import Numbers
from proxy.dialects.images import file_of
from proxy.errors import Malformed

MAX_KEY = 64 << 10  # bytes


@dataclass(frozen=True, slots=True)
class RecordedInputs:
    """Where they are, of which models, and who may open them."""

    path: Path
    models: tuple[str, ...]
    key: Path | None
    password_file: Path | None
    per_caller: int

    def read(self, kind: Kind) -> Collected:
        """Return the rows that count, and tell of the others. Raise ConfigError."""
        if self.key is None:
            raise refused(self.path, "these inputs are encrypted", "write --key with the file of the private key")
        password = None if self.password_file is None else read_password(self.password_file).encode()
        try:
            opener = Opener(read(self.key, MAX_KEY), password)
        except SealError as exc:
            raise refused(self.key, str(exc), "give the private half of the policy's `encrypt_to`") from exc
        found = Collected(self.per_caller)
        files = 0
        for rows in read_files(self.path, self.models, opener):
            found.take(rows)
            files += 1
        texts = kind is Kind.TEXT
        if kind is Kind.IMAGE and not found.numbers:
            found.images = _decoded(found)
        count = len(found.texts) if texts else len(found.images) or len(found.table())
        if not count:
            there = f"{len(found.texts):,} texts or encoded images, {len(found.numbers):,} rows of numbers"
            hint = f"{there} are there: see --kind"
            raise refused(self.path, f"no recorded input is of the kind {kind}", hint)
        self._tell(found, files, f"{count:,} {'texts' if texts else 'rows'}")
        return found

    def _tell(self, found: Collected, files: int, counted: str) -> None:
        left_out = {
            "repeats": found.repeats,
            f"above {self.per_caller} of one caller in a file": found.above_share,
            "of another width": found.other_width,
            "no image": found.undecoded,
        }
        told = "; ".join(f"{number:,} {why}" for why, number in left_out.items() if number)
        words = f"{counted} of {files} recorded files, at most {MAX_READ >> 30} GiB of the newest"
        Console(stderr=True).print(words + (f"; left out: {told}" if told else ""), markup=False, soft_wrap=True)


def _decoded(found: Collected) -> list[Numbers]:
    """Return the rows of those that are encoded images; count the others."""
    images = []
    for text in found.texts:
        try:
            images.append(decoded(file_of(text)))
        except Malformed:
            found.undecoded += 1
    return images
