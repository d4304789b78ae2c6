"""Reads where the servers of an upstream are, and how they are asked whether they are well. Pure."""

from dataclasses import replace

from proxy.dialects import Dialect
from proxy.documents import Path
from proxy.errors import Finding
from proxy.exchange import Form, HealthCheck, Upstream
from proxy.policy.address import Url, read_url
from proxy.policy.merging import Entry
from proxy.policy.places import PATH
from proxy.policy.schema import HealthEntry, UpstreamEntry

SOONEST = 0.1  # seconds between two checks of one replica

_NOWHERE = Url("https", "invalid", 443, "", "")  # so that the rest can be checked too; nothing leaves from here


def servers(entry: Entry[UpstreamEntry], faults: list[Finding]) -> list[Url]:
    """Return the addresses of an upstream, at least one; what is wrong with them is added to `faults`."""
    value = entry.value
    if (value.url is None) == (value.urls is None):
        faults.append(entry.finding("either `url` or `urls` must be there", "`urls` lists the replicas of one server"))
        return [_NOWHERE]
    if value.url is not None:
        return [_server(entry, value.url, ("url",), faults)]
    urls: list[Url] = []
    for number, text in enumerate(value.urls or ()):
        url = _server(entry, text, ("urls", number), faults)
        if url != _NOWHERE and any((one.host, one.port, one.path) == (url.host, url.port, url.path) for one in urls):
            faults.append(entry.finding("the same server twice", "keep one of the two", at=("urls", number)))
        if urls and _NOWHERE not in (urls[0], url) and url.scheme != urls[0].scheme:
            hint = "replicas share what is said of TLS"
            faults.append(entry.finding("some replicas with TLS and some without", hint, at=("urls", number)))
        urls.append(url)
    return urls


def _server(entry: Entry[UpstreamEntry], text: str, at: Path, faults: list[Finding]) -> Url:
    url = read_url(text)
    if url is None or url.query:
        faults.append(
            entry.finding(
                "not the address of a server",  # which may hold a password: it is not repeated here
                "like `https://models.internal:8000`: lower case, no user name, no query",
                at=at,
            )
        )
        return _NOWHERE
    if url.clear_on_the_wire and entry.value.plaintext is None:
        faults.append(
            entry.finding(
                f"plain HTTP to another machine, `{url.host}`",
                "use https, or say `plaintext: allowed` if the network is trusted",
                at=at,
            )
        )
    return url


def health_check(
    entry: Entry[UpstreamEntry], dialect: Dialect | None, form: Form | None, faults: list[Finding]
) -> HealthCheck | None:
    """Return how the replicas are asked whether they are well; None: there are no replicas."""
    if entry.value.urls is None and entry.value.health is None:
        return None
    value = entry.value.health or HealthEntry.model_validate({})
    at: Path = () if entry.value.health is None else ("health",)
    path = value.path or (form.health if form is not None else None if dialect is None else dialect.readiness)
    if value.path is not None and not PATH.fullmatch(value.path):
        faults.append(entry.finding(f"`{value.path}` is not a path", "like `/v2/health/ready`", at=("health", "path")))
    if path is None and dialect is not None:
        hint = f"`{dialect.name}` has no path for that: write `health: {{path: …}}`"
        faults.append(entry.finding("nobody can tell which replica is well", hint, at=at))
    if value.every < SOONEST:
        faults.append(entry.finding("`every` must be at least 100ms", "like `2s`", at=("health", "every")))
    return HealthCheck(path or "/", value.every, value.timeout, value.down_after, value.up_after)


def replicas(upstream: Upstream, urls: list[Url], health: HealthCheck) -> tuple[Upstream, ...]:
    """Return the replicas as upstreams of their own, which stay equal whatever becomes of the others."""
    return tuple(
        replace(upstream, scheme=url.scheme, host=url.host, port=url.port, base_path=url.path, health=health)
        for url in urls
    )
