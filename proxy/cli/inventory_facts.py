"""What `hip inventory` finds beside the policy: files and their ages, certificates, versions, what the journal says.

Reads; verifies no journal (`hip audit verify` does) and asks no server.
"""

import hashlib
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from cryptography import x509

from proxy import __version__
from proxy.adapters.journal.disk import segments
from proxy.cli.records import records
from proxy.config import Settings
from proxy.policy.inventory import Item, items
from proxy.policy.model import Policy
from proxy.record import PolicyChange, Probed, Start

DISTRIBUTION = "hardened-inference-proxy"


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that the policy names with its digest."""

    name: str
    file: str
    sha256: str
    state: str  # as named, absent, another file
    days: int | None  # since it was written


@dataclass(frozen=True, slots=True)
class ProbeState(NamedFile):
    """The baseline of a golden probe, and the last answer that the journal knows of."""

    model: str
    outcome: str | None = None  # same, changed, failed; None: not known
    quarantined: bool = False
    asked: str | None = None  # when, ISO 8601


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of ours, or a CA that we trust."""

    what: str
    file: str
    subject: str = ""
    ends: str = ""  # ISO 8601
    days_left: int | None = None
    fault: str = ""  # why nothing is said of it


@dataclass(frozen=True, slots=True)
class Serving:
    """What the journal last said of a worker that began, and of the policy."""

    since: str  # ISO 8601
    version: str
    policy: str  # digest
    replica: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that an inventory has in it."""

    directory: str
    policy: str  # digest
    versions: dict[str, str]
    models: tuple[Item, ...]
    detectors: tuple[NamedFile, ...]
    probes: tuple[ProbeState, ...]
    certificates: tuple[Certificate, ...]
    serving: Serving | None
    made: str = field(default="")  # ISO 8601


def gather(directory: Path, policy: Policy, now: datetime, settings: Settings | None, here: Path) -> Facts:
    """Look everything up. Without settings: no listener's certificate, and no journal."""
    journal = here / settings.audit.directory if settings else None
    told = list(_told(journal)) if journal and journal.is_dir() and segments(journal) else []
    answered = {event.probe: (t_ns, event) for t_ns, event in told if isinstance(event, Probed)}
    return Facts(
        directory=str(directory),
        policy=policy.digest,
        versions=_versions(),
        models=items(policy),
        detectors=tuple(NamedFile(*_named(one.name, one.file, one.sha256, now)) for one in policy.detectors.values()),
        probes=tuple(
            ProbeState(*_named(one.name, one.file, one.sha256, now), one.model, *_answer(answered.get(one.name)))
            for one in policy.probes
        ),
        certificates=tuple(_certificate(what, file, now) for what, file in _certificates(policy, settings, here)),
        serving=_serving(told),
        made=now.isoformat(timespec="seconds"),
    )


def _named(name: str, file: str, sha256: str, now: datetime) -> tuple[str, str, str, str, int | None]:
    path = Path(file)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return name, file, sha256, "absent", None
    return name, file, sha256, "as named" if found == sha256 else "another file", (now - written).days


def _answer(last: tuple[int, Probed] | None) -> tuple[str | None, bool, str | None]:
    return (None, False, None) if last is None else (last[1].outcome, last[1].quarantined, _when(last[0]))


def _certificates(policy: Policy, settings: Settings | None, here: Path) -> Iterator[tuple[str, Path]]:
    tls = settings.listen.tls if settings else None
    if tls is not None:
        yield "listener", here / tls.certificate
        if tls.client_ca is not None:
            yield "CA of clients", here / tls.client_ca
    if settings and settings.state and settings.state.ca_file is not None:
        yield "CA of the shared store", here / settings.state.ca_file
    for issuer in policy.issuers.values():
        if issuer.ca_file is not None:
            yield f"CA of issuer {issuer.name}", Path(issuer.ca_file)
    for server in policy.upstreams.values():
        for what, file in (("CA", server.ca_file), ("our certificate", server.client_cert_file)):
            if file is not None:
                yield f"{what} for upstream {server.name}", Path(file)


def _certificate(what: str, file: Path, now: datetime) -> Certificate:
    """Say when a file's first certificate to end ends."""
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as exc:
        return Certificate(what, str(file), fault=f"cannot be read ({type(exc).__name__})")
    first = min(found, key=lambda one: one.not_valid_after_utc)
    ends = first.not_valid_after_utc
    return Certificate(what, str(file), first.subject.rfc4514_string(), ends.isoformat(), (ends - now).days)


def _told(journal: Path) -> Iterator[tuple[int, Probed | Start | PolicyChange]]:
    for kind in ("probe", "start", "policy"):
        for envelope, event in records(journal, f'"type":"{kind}"'):
            if isinstance(event, Probed | Start | PolicyChange):
                yield envelope.t_ns, event


def _serving(told: Iterable[tuple[int, Probed | Start | PolicyChange]]) -> Serving | None:
    starts = [(t_ns, event) for t_ns, event in told if isinstance(event, Start)]
    if not starts:
        return None
    began, start = max(starts, key=lambda one: one[0])
    changes = [(t_ns, event.policy) for t_ns, event in told if isinstance(event, PolicyChange) and t_ns > began]
    return Serving(_when(began), start.version, max(changes)[1] if changes else start.policy, start.replica)


def _when(t_ns: int) -> str:
    return datetime.fromtimestamp(t_ns / 1e9, UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    """Return what runs: us, Python, and each library of ours that is installed."""
    found = {"hip": __version__, "python": platform.python_version()}
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return found
    for name in sorted({re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower() for requirement in wanted}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
