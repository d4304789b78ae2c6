"""A password in a file of its own, as a Kubernetes Secret mounts it: one line, private, never in a message.

Read when it is needed, and so never older than the last need. Not guaranteed: that memory forgets it.
"""

import os
from pathlib import Path
from typing import Final

from proxy.adapters.tls import exposed
from proxy.errors import ConfigError, Finding

MAX_PASSWORD: Final = 4096  # bytes; a file that has more is another file


def read_password(path: Path) -> str:
    """Return the file's only line without its end, or raise ConfigError with what is wrong with the file."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(MAX_PASSWORD + 1)
    except OSError as exc:
        raise _wrong(path, f"the file cannot be read: {exc.strerror}", "put the password there") from exc
    if exposed(status.st_mode, status.st_uid, os.geteuid()):
        raise _wrong(path, "a secret that others on this machine can read", f"chmod 600 {path}")
    try:
        lines = content.decode().removesuffix("\n").removesuffix("\r").splitlines()
    except UnicodeDecodeError as exc:
        raise _wrong(path, "not a password: no UTF-8", "one line of text") from exc
    if len(content) > MAX_PASSWORD or len(lines) != 1 or not lines[0]:
        raise _wrong(path, "not a password: it must be one line that is not empty", "one line of text")
    return lines[0]


def _wrong(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
