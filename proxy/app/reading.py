"""What is read before anything serves: the configuration, the certificates, the policy. All faults are told at once."""

from pathlib import Path

from proxy.adapters.tls import ClientCertificates, Profile, ServerTls, TlsFiles
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.app.seal import Seal
from proxy.app.standing import Standing
from proxy.config import Settings, read_settings
from proxy.errors import ConfigError, Finding
from proxy.ports import Clock


def read_config(config: Path, workers: int | None = None) -> tuple[bytes, Settings]:
    """Return the file and what it says; `workers` goes before the file's number. Raise ConfigError."""
    try:
        data = config.read_bytes()
    except OSError as exc:
        hint = "name the file: hip serve --config FILE; `hip init` writes one"
        raise ConfigError([Finding(str(config), 0, 0, f"cannot be read: {exc.strerror}", hint)]) from exc
    return data, read_settings(str(config), data, workers)


def load(
    settings: Settings, here: Path, upstreams: HttpUpstreamClient, clock: Clock
) -> tuple[ServerTls | None, Standing]:
    """Read certificates and policies; whatever is wrong with either is told at once."""
    findings: list[Finding] = []
    tls = standing = None
    try:
        tls = _tls(settings, here, clock)
    except ConfigError as error:
        findings += error.findings
    try:
        seal, recordings = _seal(settings, here), settings.recordings is not None
        standing = Standing(here / settings.policies, upstreams, seal, recordings=recordings)
    except ConfigError as error:
        findings += error.findings
    if standing is None or findings:
        raise ConfigError(findings)
    return tls, standing


def _seal(settings: Settings, here: Path) -> Seal | None:
    wanted = settings.policy_signature
    if wanted is None:
        return None
    audit = here / settings.audit.directory
    return Seal.of(here / wanted.public_key, audit, rollback=wanted.rollback is not None)


def _tls(settings: Settings, here: Path, clock: Clock) -> ServerTls | None:
    tls = settings.listen.tls
    if tls is None:
        return None
    files = TlsFiles(
        certificate=here / tls.certificate,
        key=here / tls.key,
        key_password=here / tls.key_password_file if tls.key_password_file else None,
        client_ca=here / tls.client_ca if tls.client_ca else None,
        client_crl=here / tls.client_crl if tls.client_crl else None,
    )
    return ServerTls(files, ClientCertificates(tls.client_certificates), Profile(tls.profile), clock.now())
