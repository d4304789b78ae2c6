"""Builds the issuers, workloads and upstreams of a policy: who callers are, and where the models are."""

import re
from collections.abc import Mapping
from dataclasses import replace

from proxy.dialects import Dialect
from proxy.documents import Path, suggestion
from proxy.errors import Finding
from proxy.exchange import Form, Issuer, Mfa, Pointer, Upstream
from proxy.identity.workload import Workload
from proxy.policy.address import read_url
from proxy.policy.merging import Entry
from proxy.policy.places import DNS, PATH, prefix, public_host
from proxy.policy.replicas import health_check, replicas, servers
from proxy.policy.schema import IssuerEntry, MfaTerms, UpstreamEntry, WorkloadEntry

MAX_LEEWAY = 300  # seconds; a clock that is further off is broken
MAX_STALENESS = 86_400  # seconds that a withdrawn key may still count while its issuer is away

_URI = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]+")  # RFC 3986 section 3: a scheme and something, visible ASCII


def upstream(
    entry: Entry[UpstreamEntry], dialects: Mapping[str, Dialect], root: str, faults: list[Finding]
) -> Upstream:
    """Build an upstream; what is wrong with it is added to `faults`."""
    value = entry.value
    urls = servers(entry, faults)
    url = urls[0]
    if value.dialect not in dialects:
        message = f"unknown dialect `{value.dialect}`{suggestion(value.dialect, dialects)}"
        faults.append(entry.finding(message, f"known dialects: {', '.join(sorted(dialects))}", at=("dialect",)))
    if (value.client_certificate is None) != (value.client_key is None):
        faults.append(entry.finding("`client_certificate` and `client_key` belong together", "set both, or neither"))
    faults += [
        entry.finding(f"`{key}` means nothing without https", "write https://", at=(key,))
        for key in ("ca_file", "client_certificate", "public_key_sha256")
        if url.scheme == "http" and getattr(value, key) is not None
    ]
    form = _form(entry, faults)
    one = Upstream(
        name=entry.name,
        scheme=url.scheme,
        host=url.host,
        port=url.port,
        base_path=url.path,
        dialect=value.dialect,
        timeout=value.timeout,
        connect_timeout=value.connect_timeout,
        max_reply_bytes=value.max_reply,
        max_connections=value.max_connections,
        ca_file=under(root, value.ca_file),
        client_cert_file=under(root, value.client_certificate),
        client_key_file=under(root, value.client_key),
        spki_sha256=value.public_key_sha256,
        form=form,
    )
    health = health_check(entry, dialects.get(value.dialect), form, faults)
    return replace(
        one,
        public_host=public_host(entry, faults),
        prefix=prefix(entry, faults),
        replicas=() if health is None else replicas(one, urls, health),
        health=health,
    )


def _form(entry: Entry[UpstreamEntry], faults: list[Finding]) -> Form | None:
    value = entry.value.generic
    if (value is not None) != (entry.value.dialect == "generic"):
        hint = "like `generic: {infer: /classify, rows: /inputs, scores: [/results/*/scores]}`"
        faults.append(entry.finding("`dialect: generic` and a description under `generic` belong together", hint))
    if value is None:
        return None
    for key in ("infer", "health"):
        path = getattr(value, key)
        if path is not None and not PATH.fullmatch(path):
            faults.append(entry.finding(f"`{path}` is not a path", "like `/classify`", at=("generic", key)))
    for key in ("rows", "features"):
        if "*" in (getattr(value, key) or ""):
            hint = "name the list itself" if key == "rows" else "a row's own numbers, from inside the row"
            faults.append(entry.finding(f"`{key}` has no `*`", hint, at=("generic", key)))
    return Form(
        infer=value.infer,
        rows=_steps(value.rows),
        features=None if value.features is None else _steps(value.features),
        scores=tuple(map(_steps, value.scores)),
        labels=tuple(map(_steps, value.labels)),
        health=value.health,
    )


def _steps(pointer: str) -> Pointer:
    """RFC 6901 section 4: `~1` before `~0`."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def issuer(entry: Entry[IssuerEntry], root: str, faults: list[Finding]) -> Issuer:
    """Build an issuer; what is wrong with it is added to `faults`."""
    value = entry.value
    sources = [key for key in ("jwks_uri", "jwks_file", "discovery") if getattr(value, key) is not None]
    if not sources:
        hint = "set one of `jwks_uri`, `jwks_file` and `discovery: true`"
        faults.append(entry.finding(f"issuer `{entry.name}` has no keys", hint))
    faults += [
        entry.finding(f"`{sources[0]}` and `{key}` are both set", "keep one of them", at=(key,)) for key in sources[1:]
    ]
    if value.jwks_uri is not None:
        _private(entry, value.jwks_uri, ("jwks_uri",), faults)
    if value.discovery:
        _private(entry, value.issuer, ("issuer",), faults)
    if value.leeway > MAX_LEEWAY:
        faults.append(entry.finding("`leeway` must be at most 5m", "set the clocks right instead", at=("leeway",)))
    if value.max_staleness > MAX_STALENESS:
        hint = "a key that was withdrawn counts that long"
        faults.append(entry.finding("`max_staleness` must be at most 1d", hint, at=("max_staleness",)))
    claim = value.roles_claim
    return Issuer(
        name=entry.name,
        issuer=value.issuer,
        audience=value.audience,
        algorithms=frozenset(value.algorithms),
        mfa=terms(value.mfa) if value.mfa else Mfa(),
        roles_claim=tuple(claim.split(".")) if isinstance(claim, str) else claim,
        token_types=frozenset(value.token_types),
        jwks_file=under(root, value.jwks_file),
        jwks_uri=value.jwks_uri,
        discovery=bool(value.discovery),
        ca_file=under(root, value.ca_file),
        leeway=value.leeway,
        max_staleness=value.max_staleness,
    )


def workload(entry: Entry[WorkloadEntry], faults: list[Finding]) -> Workload:
    """Build a workload; what is wrong with it is added to `faults`."""
    value = entry.value
    if (value.uri is None) == (value.dns is None):
        faults.append(entry.finding(f"workload `{entry.name}` needs either `uri` or `dns`", "set one of the two"))
    if value.uri is not None and not _URI.fullmatch(value.uri):
        hint = "like `spiffe://example.org/scorer`: the whole URI, as it stands in the certificate"
        faults.append(entry.finding(f"`{value.uri}` is not a URI", hint, at=("uri",)))
    if value.dns is not None and not DNS.fullmatch(value.dns):
        hint = "like `scorer.internal`: the whole name in lower case, without wildcards"
        faults.append(entry.finding(f"`{value.dns}` is not a DNS name", hint, at=("dns",)))
    return Workload(entry.name, frozenset(value.roles), value.uri, value.dns)


def terms(value: MfaTerms) -> Mfa:
    """Return multi-factor terms as the identity part reads them."""
    return Mfa(frozenset(value.any_amr or ()), value.acr_values or (), value.max_age)


def under(root: str, file: str | None) -> str | None:
    """Return a file's name as seen from where the process runs: relative names are relative to the directory."""
    return file if file is None or not root or file.startswith("/") else f"{root}/{file}"


def _private(entry: Entry[IssuerEntry], text: str, at: Path, faults: list[Finding]) -> None:
    """Refuse an address from which keys could be had by anybody on the way."""
    url = read_url(text)
    if url is None:
        faults.append(entry.finding("not a web address", "like `https://idp.example.com/jwks`", at=at))
    elif url.clear_on_the_wire:
        faults.append(entry.finding("keys over plain HTTP can be replaced on the way", "use https", at=at))
