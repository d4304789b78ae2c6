"""Whether a policy may serve at all: signed by the key that `policy_signature` names, and not older than the last.

Files are signed as they are read; when the two do not fit together yet, because somebody is writing them, the policy
is rejected and read again with the next change.
"""

from dataclasses import dataclass
from pathlib import Path

from proxy.adapters.policy_seal import read_signature, read_verifier, recall, remember
from proxy.audit.note import Verifier
from proxy.errors import ConfigError, Finding
from proxy.policy.signature import SIGNATURE_FILE, SignatureError, verify

MEMORY_FILE = "policy-version"  # in the audit directory


@dataclass(frozen=True, slots=True)
class Seal:
    """What a policy must show. `rollback`: an older version may serve, because the configuration says so in words."""

    verifier: Verifier
    memory: Path
    rollback: bool

    @classmethod
    def of(cls, public_key: Path, audit: Path, *, rollback: bool) -> "Seal":
        """Read the public key. Raise ConfigError."""
        return cls(read_verifier(public_key), audit / MEMORY_FILE, rollback)

    def admit(self, directory: Path, digest: str) -> int:
        """Return the version of the policy that may serve, and remember it. Raise ConfigError."""
        note = read_signature(directory / SIGNATURE_FILE)
        if note is None:
            raise _refused(
                "is not there, and hip.yaml requires it", f"`hip policy sign {directory} --key FILE` writes it"
            )
        try:
            version = verify(note, self.verifier, digest)
        except SignatureError as exc:
            message = f"does not hold: {exc}"
            raise _refused(message, f"`hip policy sign {directory} --key FILE` signs the files as they are") from exc
        last, last_digest = recall(self.memory)
        if (version, digest) == (last, last_digest):
            return version
        if not self.rollback:
            _check_order(version, last)
        remember(self.memory, version, digest)
        return version


def _check_order(version: int, last: int) -> None:
    hint = "`hip policy sign` takes the next number; `rollback: allowed` in hip.yaml lets an older one serve"
    if version > last:
        return
    served = f"version {last} has served" if version < last else "other files have served under that number"
    message = f"is version {version}, and {served}"
    raise _refused(message, hint)


def _refused(message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(SIGNATURE_FILE, 0, 0, message, hint)])
