"""What all contenders share: one directory with certificates, keys, tokens, a detector, and the upstream's address."""

import time
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from benchmarks.lab.upstream import MODEL, ROWS_1MB, ROWS_10MB, Upstream, start_upstream
from proxy.adapters.mint import Minted, mint
from proxy.demo.detector import ALPHA
from proxy.demo.digits import load_digits, scaled
from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from proxy.detection.fit import Subject, fit
from proxy.detection.graph import build

COLD_TOKENS = 8_192  # distinct ones, in turn: twice what we remember, eighty times what Envoy does
ANALYST, STRANGER, TRIAL = "analyst", "stranger", "trial"  # allowed, without any rule, with an empty budget


@dataclass(frozen=True)
class Setting:
    """One laboratory."""

    directory: Path
    root: Path  # of the repository
    upstream: Upstream
    certificates: Minted
    identity: DemoIdentityProvider
    detector_digest: str

    @property
    def issuer(self) -> str:
        return self.identity.issuer

    @property
    def audience(self) -> str:
        return AUDIENCE

    def token(self, role: str = ANALYST, subject: str = "alice") -> str:
        return self.identity.token(subject, (role,))

    @cached_property
    def cold_tokens(self) -> list[str]:
        return [self.identity.token(f"user-{number % 64}", (ANALYST,)) for number in range(COLD_TOKENS)]

    def place(self, name: str) -> Path:
        """Return a new directory for a contender."""
        path = self.directory / name.replace(" ", "-")
        path.mkdir(parents=True)
        return path


def make_setting(directory: Path, root: Path) -> Setting:
    """Start the upstream and write what the contenders read."""
    certificates = mint(directory / "certs", ["localhost", "127.0.0.1"], ["analyst"])
    identity = DemoIdentityProvider(port=1, now=time.time)  # never started: its keys are read from a file
    (directory / "jwks.json").write_bytes(identity.jwks())
    subject = Subject("the laboratory's digits", (MODEL, f"{MODEL}-{ROWS_1MB}", f"{MODEL}-{ROWS_10MB}"))
    detector = build(fit(scaled(load_digits().training), subject, ALPHA))
    (directory / "digits.onnx").write_bytes(detector)
    (directory / "upstream").mkdir()
    upstream = start_upstream(directory / "upstream")
    return Setting(directory, root, upstream, certificates, identity, sha256(detector).hexdigest())
