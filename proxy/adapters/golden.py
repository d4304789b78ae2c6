"""Baseline files of golden probes: read once, believed only under the digest that the policy names."""

import hashlib
from pathlib import Path

from proxy.detection.golden import MAX_BASELINE, Golden, read_golden
from proxy.errors import ConfigError, Finding


def load_golden(path: Path, sha256: str) -> Golden:
    """Return a baseline. Raise ConfigError when the file is missing, another or none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BASELINE + 1)
    except OSError as exc:
        hint = "make it with `hip probe record`, or mend its path in the policy"
        raise _refused(path, f"cannot be read: {exc.strerror or type(exc).__name__}", hint) from exc
    if len(data) > MAX_BASELINE:
        raise _refused(path, f"larger than any baseline ({MAX_BASELINE:,} bytes)", "record fewer rows")
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        hint = "whoever changed it tells why; then write the new digest into the policy"
        raise _refused(path, f"its SHA-256 is {digest}, and the policy names {sha256}", hint)
    return read_golden(data, str(path))


def _refused(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
