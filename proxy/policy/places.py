"""Where callers find each upstream: its host and prefix, and that no request could be meant for two. Pure."""

import re
from collections.abc import Mapping
from itertools import combinations

from proxy.dialects import Dialect
from proxy.errors import Finding, RequestError
from proxy.exchange import Naming, Upstream
from proxy.policy.merging import Entry, Parts
from proxy.policy.schema import UpstreamEntry

PATH = re.compile(r"(?:/[A-Za-z0-9][A-Za-z0-9._~-]*)+")
DNS = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*")  # RFC 1034 section 3.5

# How the dialects' own paths begin: a prefix that begins so would take requests that are meant for another server.
OWN = frozenset({"health", "invocations", "ping", "predictions", "v1", "v2"})


def public_host(entry: Entry[UpstreamEntry], faults: list[Finding]) -> str | None:
    """Return the host under which callers find an upstream."""
    host = entry.value.host
    if host is not None and not DNS.fullmatch(host):
        hint = "like `iris.example.com`: the whole name in lower case, without port and wildcards"
        faults.append(entry.finding(f"`{host}` is not a host", hint, at=("host",)))
        return None
    return host


def prefix(entry: Entry[UpstreamEntry], faults: list[Finding]) -> str:
    """Return the prefix under which callers find an upstream."""
    text = entry.value.prefix
    if text is None:
        return ""
    if not PATH.fullmatch(text):
        hint = "like `/iris` or `/teams/botany`: no slash at the end, no dots alone, nothing encoded"
        faults.append(entry.finding(f"`{text}` is not a prefix", hint, at=("prefix",)))
        return ""
    if text.split("/")[1] in OWN:
        hint = "that is how requests of model servers begin: choose another"
        faults.append(entry.finding(f"`{text}` cannot be a prefix", hint, at=("prefix",)))
    return text


def check_places(
    parts: Parts, upstreams: Mapping[str, Upstream], dialects: Mapping[str, Dialect], faults: list[Finding]
) -> None:
    """Refuse two upstreams that some request could be meant for."""
    for first, second in combinations(parts.upstreams.values(), 2):
        one, other = upstreams[first.name], upstreams[second.name]
        if one.public_host != other.public_host and None not in (one.public_host, other.public_host):
            continue  # no request reaches both
        if one.prefix == other.prefix:
            _check_same(first, second, one, other, dialects, faults)
        elif one.prefix and other.prefix:
            if _within(one.prefix, other.prefix) or _within(other.prefix, one.prefix):
                message = f"`{other.prefix}` and `{one.prefix}` (at {first.place}) lie in each other"
                hint = "choose prefixes of which none begins the other, or a `host` for each"
                faults.append(second.finding(message, hint, at=("prefix",)))
        else:
            _check_description(second if other.prefix else first, other if other.prefix else one, one, other, faults)


def _check_same(
    first: Entry[UpstreamEntry],
    second: Entry[UpstreamEntry],
    one: Upstream,
    other: Upstream,
    dialects: Mapping[str, Dialect],
    faults: list[Finding],
) -> None:
    if one.public_host != other.public_host:
        message = f"upstream `{first.name}` (at {first.place}) has the same paths"
        hint = "say `host` of both, or of neither; or give one of them a `prefix`"
        faults.append(second.finding(message, hint, at=("host",) if other.public_host else ()))
        return
    dialect = dialects.get(one.dialect)
    if dialect is not None and one.dialect == other.dialect and dialect.naming is Naming.NOWHERE:
        message = f"upstream `{first.name}` (at {first.place}) speaks `{one.dialect}` at the same address"
        hint = "its requests name no model: give one of them a `prefix` or a `host`"
        faults.append(second.finding(message, hint, at=("dialect",)))
    for entry, described, known in ((first, one, other), (second, other, one)):
        _check_own(entry, described, dialects.get(known.dialect), known, faults)


def _check_own(
    entry: Entry[UpstreamEntry], described: Upstream, dialect: Dialect | None, known: Upstream, faults: list[Finding]
) -> None:
    """Refuse a described path that is another server's at the same address: that server would never be asked."""
    if described.form is None or known.form is not None or dialect is None:
        return
    path = described.form.infer
    try:
        found = dialect.classify("POST", path, "") is not None
    except RequestError:  # it knows the path, and refuses the method
        found = True
    if found:
        message = f"`{path}` is a path of `{dialect.name}`, which upstream `{known.name}` speaks at the same address"
        faults.append(entry.finding(message, "give one of them a `prefix` or a `host`", at=("generic", "infer")))


def _check_description(
    entry: Entry[UpstreamEntry], placed: Upstream, one: Upstream, other: Upstream, faults: list[Finding]
) -> None:
    """Refuse a described path that lies under another server's prefix."""
    form = (one if placed is other else other).form
    for path in (None, None) if form is None else (form.infer, form.health):
        if path is not None and _within(path, placed.prefix):
            message = f"`{placed.prefix}` takes `{path}`, which another upstream describes"
            faults.append(entry.finding(message, "choose another prefix", at=("prefix",)))


def _within(path: str, prefix: str) -> bool:
    return path.startswith(f"{prefix}/")
