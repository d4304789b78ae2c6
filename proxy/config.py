"""`hip.yaml`: how this process listens, where its policy lies, where its trail goes. Pure: text in, settings out.

What callers may do stands in the policy directory, never here. Every field has a default that is safe, or none.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from proxy.documents import Closed, Document, parse, validate
from proxy.documents.quantities import Bytes, Rate, Seconds
from proxy.errors import ConfigError, Finding
from proxy.exchange import Unit, Window

MIN_RECORDINGS = 16 << 20  # bytes: one window of one model's inputs
_TLS_STORES = ("rediss://", "valkeys://")

Port = Annotated[int, Field(ge=0, le=65535)]


class Tls(Closed):
    """The listener's certificate, and what it asks of its clients."""

    certificate: str
    """PEM file: the server certificate and its chain."""
    key: str
    """PEM file: its private key, readable by the owner only."""
    key_password_file: str | None = None
    """File with the password of an encrypted key."""
    client_ca: str | None = None
    """PEM file: who may issue client certificates."""
    client_crl: str | None = None
    """PEM file: which client certificates their CA has taken back. Read again when it changes."""
    client_certificates: Literal["off", "optional", "required"] = "off"
    """Whether clients show a certificate. Anything but `off` needs `client_ca`."""
    profile: Literal["modern", "intermediate", "fips"] = "intermediate"
    """`modern` is TLS 1.3 only, `intermediate` TLS 1.2 and 1.3, `fips` the same without ChaCha20."""


class Limits(Closed):
    """Caps of the listener; each worker has its own."""

    body: Bytes = 16 * 1024 * 1024
    """Largest request body."""
    connections: Annotated[int, Field(ge=1)] = 2048
    """Connections in all."""
    connections_per_source: Annotated[int, Field(ge=1)] = 256
    """Connections from one address."""
    requests: Annotated[int, Field(ge=2)] = 512
    """Requests under way; one address may have as many as places are still free, so at most half."""
    requests_per_principal: Annotated[int, Field(ge=1)] | None = None
    """Requests under way of one principal. Absent: as many as its address may have."""


class Listen(Closed):
    """The data path."""

    host: str = "0.0.0.0"  # noqa: S104 - a proxy is there to be reached
    """Address to bind."""
    port: Port = 8443
    tls: Tls | None = None
    """Required, unless `plaintext: allowed` says otherwise in words."""
    plaintext: Literal["allowed"] | None = None
    """Serve without TLS, because something trusted in front of us terminates it."""
    limits: Limits = Limits()
    public_url: Annotated[str, Field(pattern=r"^https?://[a-z0-9.:\[\]-]+(/[A-Za-z0-9._~-]+)*$")] | None = None
    """How clients know us, as https://models.example.com: what DPoP proofs name. Absent: bound tokens are refused."""
    realm: Annotated[str, Field(pattern=r"^[A-Za-z0-9._ -]{1,64}$")] = "inference"
    """Named in 401 answers."""
    drain: Seconds = 20
    """How long requests in flight may take after SIGTERM."""


class Admin(Closed):
    """Health, readiness and metrics, apart from the data path and without authentication: keep it on loopback."""

    host: str = "127.0.0.1"
    port: Port = 9090


class Audit(Closed):
    """The signed journal, the system of record."""

    directory: str = "audit"
    """Where the journal and its keys lie."""
    durability: Literal["sync", "group", "async"] = "group"
    """When a record counts as written.

    `sync`: on stable storage before the request goes on. `group`: with the kernel, which survives our own death, and
    on storage a moment later. `async`: buffered; the last moment is lost when we die.
    """
    failure: Literal["deny", "open"] = "deny"
    """What becomes of a request whose record cannot be written.

    `deny`: refused with 503. `open`: it passes WITHOUT A RECORD; counted, alarmed, and on record as a gap afterwards.
    """
    retention: Literal["eu-ai-act", "pci", "hipaa", "forever"] = "eu-ai-act"
    """How long records are kept: 184 days, 365 days, 2190 days, or for ever. Deletions are on record."""
    encrypt_to: str | None = None
    """PEM file of an X25519 or RSA public key: requests' records are encrypted to it, and we cannot read them."""
    heads: str | None = None
    """Where signed heads are repeated, to show that a journal was rolled back.

    A file on other storage; or a syslog collector: syslog+tls://HOST:PORT, or syslog+tcp://HOST:PORT without TLS.
    """
    heads_ca_file: str | None = None
    """PEM file: the CA of the collector's certificate, instead of the system's."""


class Telemetry(Closed):
    """OpenTelemetry spans, derived from the audit record."""

    otlp: str | None = None
    """OTLP/HTTP endpoint for traces, as http://127.0.0.1:4318/v1/traces."""
    file: str | None = None
    """JSON-lines file, one OTLP export request a line."""


class State(Closed):
    """What several workers or replicas share."""

    url: str
    """valkey://, redis:// or rediss:// (TLS); user and password may stand in it."""
    password_file: str | None = None
    """File whose only line is the password, as a Kubernetes Secret mounts it. Read again for every new connection."""
    ca_file: str | None = None
    """PEM file: the CA of the store's certificate, instead of the system's."""


class Recordings(Closed):
    """Where recorded inputs lie, if a policy says `record_inputs`. They are sealed to the policy's key."""

    directory: str = "recordings"
    at_most: Bytes = 1 << 30
    """All of them; above it the oldest are deleted."""


class PolicySignature(Closed):
    """Who may change the policy."""

    public_key: str
    """File with the public key that `hip policy keygen` made: only a policy that it signed may serve."""
    rollback: Literal["allowed"] | None = None
    """Let an older version serve again, until the word is taken away."""


class Settings(Closed):
    """The whole file."""

    version: Literal["v1"]
    listen: Listen
    admin: Admin = Admin()
    policies: str = "policies"
    """The policy directory."""
    policy_signature: PolicySignature | None = None
    """Absent: whoever can write the policy directory decides."""
    audit: Audit = Audit()
    telemetry: Telemetry = Telemetry()
    revocations: str | None = None
    """File of revoked tokens, subjects and certificates, one JSON object a line; `hip revoke` writes it.

    With `state`, it writes the list that workers and replicas share, too; then the file may be left out.
    """
    recordings: Recordings | None = None
    """Absent: no policy may say `record_inputs`."""
    state: State | None = None
    """Absent: budgets live in this process's memory."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that serve. More than one share what they count, and so need `state`."""
    failed_authentications: Rate = Window(Unit.REQUESTS, 30, 60)
    """How often one source address may fail to authenticate."""


def read_settings(name: str, data: bytes, workers: int | None = None) -> Settings:
    """Return the settings, or raise ConfigError with every fault and its place. `workers` goes before the file's."""
    document = parse(name, data)
    settings = validate(document, Settings)
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    findings = list(_contradictions(document, settings))
    if findings:
        raise ConfigError(findings)
    return settings


def _contradictions(document: Document, settings: Settings) -> Iterator[Finding]:
    """Yield what each key allows and all of them together do not."""
    listen = settings.listen
    if (listen.tls is None) == (listen.plaintext is None):
        yield document.finding(
            ("listen",),
            "exactly one of `tls` and `plaintext: allowed` must be there",
            "name a certificate under `tls`; say `plaintext: allowed` only where something trusted terminates TLS",
        )
    if listen.tls and (listen.tls.client_certificates == "off") != (listen.tls.client_ca is None):
        yield document.finding(
            ("listen", "tls"),
            "`client_ca` and `client_certificates` go together",
            "name the CA and say `optional` or `required`, or leave both out",
        )
    if listen.tls and listen.tls.client_crl is not None and listen.tls.client_ca is None:
        hint = "name the CA as `client_ca`, or leave the list out"
        yield document.finding(("listen", "tls", "client_crl"), "a list of client certificates that no CA issues", hint)
    if settings.state and settings.state.ca_file is not None and not settings.state.url.startswith(_TLS_STORES):
        hint = "write rediss:// or valkeys://, or leave `ca_file` out"
        yield document.finding(("state", "ca_file"), "a CA for a store that is not asked over TLS", hint)
    if settings.state and settings.state.password_file is not None and _has_password(settings.state.url):
        hint = "leave the password out of the URL; the user stays there"
        yield document.finding(("state", "password_file"), "a second password: `url` has one too", hint)
    if settings.workers > 1 and settings.state is None:
        yield document.finding(
            ("workers",),
            f"{settings.workers} workers without `state`: each would count every budget on its own",
            "name a Valkey or Redis that they share, or serve with one",
        )
    if settings.recordings and settings.recordings.at_most < MIN_RECORDINGS:
        yield document.finding(
            ("recordings", "at_most"), "must be at least 16MiB", "it is for weeks of inputs", value=True
        )
    if settings.failed_authentications.unit is not Unit.REQUESTS:
        yield document.finding(
            ("failed_authentications",), "must be in requests", "like `30 requests/minute`", value=True
        )


def _has_password(url: str) -> bool:
    userinfo, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    return bool(at) and ":" in userinfo
