"""The key ring: issuers' public keys from a file, a URL or OpenID discovery, kept fresh without a timer.

Who looks, refreshes: a look at keys that are due starts one fetch in the background and goes on with the keys in
hand, so that an idle proxy asks nobody. Only a caller without keys, or with a `kid` that the set does not have,
waits, and then at most one fetch is under way per issuer and not more than one per pause (for an unknown `kid`, three
in the first), whatever is asked. A fetch
that fails or brings a document that is not to be trusted changes nothing; keys that no fetch has confirmed for the
issuer's `max_staleness` are gone. The rules for the documents are in `proxy.identity`.

Not guaranteed: that a key withdrawn by its issuer is unknown here before the next refresh.
"""

import asyncio
import itertools
import math
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

from proxy.errors import DependencyFault, Unauthenticated
from proxy.exchange import Issuer
from proxy.identity.discovery import configuration_url, discovered_jwks_uri, permitted
from proxy.identity.keyset import MAX_DOCUMENT_BYTES, KeySet, parse_key_set
from proxy.ports import Clock, VerificationKey
from proxy.reasons import Reason

REFRESH_SECONDS = 300.0  # the age at which a look at remote keys starts a refresh
PAUSE_SECONDS = 10.0  # between two fetches that a failure asks for; on average, between two for an unknown `kid`
KID_SECONDS = 1.0  # between two fetches for an unknown `kid`, as long as …
KID_BURST = 3  # … no more than so many come in one pause: rotated keys are found, invented ones cost the issuer little
FILE_SECONDS = 1.0  # both of these, for a file
FETCH_SECONDS = 5.0  # one fetch, discovery and keys together, however slowly the bytes drip
MAX_ERROR_CHARS = 200  # of a foreign error's text, for the operator

_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "hip"}

# What decides about keys: a policy that only changes roles or factors keeps them, even while the provider is away.
_Source = tuple[str, frozenset[str], str | None, str | None, bool, str | None, int]


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """What an operator is told about an issuer's keys."""

    issuer: str  # the name in the policy
    keys: int
    age: float | None  # seconds since the source confirmed them; None: none in hand
    error: str  # why the last fetch changed nothing; empty after a good one
    skipped: tuple[str, ...]


@dataclass(slots=True)
class _Held:
    issuer: Issuer
    generation: int
    keys: KeySet | None = None
    document: bytes = b""
    confirmed_at: float = -math.inf  # monotonic seconds
    attempted_at: float = -math.inf
    kids_until: float = -math.inf  # monotonic seconds: until then fetches for an unknown `kid` are paid for (GCRA)
    error: str = ""
    fetch: asyncio.Task[None] | None = None


class JwksKeyRing:
    """The issuers' keys behind the `KeyRing` port. One per process, used on one event loop."""

    def __init__(self, clock: Clock, *, fetch_seconds: float = FETCH_SECONDS) -> None:
        self._clock = clock
        self._fetch_seconds = fetch_seconds
        self._held: dict[_Source, _Held] = {}
        self._generations = itertools.count(1)  # one count for all: a number never comes back

    async def load(self, issuers: Iterable[Issuer]) -> None:
        """Fetch the keys of a policy's issuers, at start and before a reloaded policy serves; forget all others.

        A fetch that fails raises nothing: it shows in `status()`, and whoever needs the keys will try again.
        """
        wanted = {_source(issuer): issuer for issuer in issuers}
        for source in self._held.keys() - wanted.keys():
            await _cancel(self._held.pop(source))
        await asyncio.gather(*(self._attempt(held) for held in map(self._look, wanted.values()) if held.keys is None))

    async def key(self, issuer: Issuer, kid: str) -> VerificationKey:
        """Return a key; raise Unauthenticated(TOKEN_KEY_UNKNOWN) or DependencyFault(KEYS_UNAVAILABLE)."""
        held = self._look(issuer)
        if held.keys is None or kid not in held.keys.keys:
            await self._attempt(held)
        if held.keys is None:
            raise DependencyFault(Reason.KEYS_UNAVAILABLE, f"{issuer.name}: {held.error}")
        if kid not in held.keys.keys:
            raise Unauthenticated(Reason.TOKEN_KEY_UNKNOWN, f"{issuer.name} has no usable key of this kid")
        return held.keys.keys[kid]

    def generation(self, issuer: Issuer) -> int:
        """Return a number that changes with the issuer's keys."""
        return self._look(issuer).generation

    def status(self) -> tuple[KeyStatus, ...]:
        """Return the state of every issuer's keys; like any look, it starts a refresh that is due."""
        return tuple(map(self._status, map(self._look, [held.issuer for held in self._held.values()])))

    async def close(self) -> None:
        """End every fetch."""
        for held in self._held.values():
            await _cancel(held)

    def _look(self, issuer: Issuer) -> _Held:
        source = _source(issuer)
        held = self._held.get(source)
        if held is None:
            held = self._held[source] = _Held(issuer, next(self._generations))
        now = self._clock.monotonic()
        if held.keys is not None and now - held.confirmed_at > issuer.max_staleness:
            held.keys, held.generation = None, next(self._generations)
        if held.fetch is None and now - held.attempted_at >= _refresh_seconds(held):
            self._begin(held)
        return held

    async def _attempt(self, held: _Held) -> None:
        """Wait for the fetch under way, or for a new one unless the last began a moment ago."""
        if held.fetch is None and _may_fetch(held, self._clock.monotonic()):
            self._begin(held)
        if held.fetch is not None:
            await asyncio.wait({held.fetch})  # a caller that goes away does not take the others' fetch with it

    def _begin(self, held: _Held) -> None:
        held.attempted_at = self._clock.monotonic()
        held.fetch = asyncio.create_task(self._fetch(held), name=f"keys of {held.issuer.name}")

    async def _fetch(self, held: _Held) -> None:
        try:
            document = await _document(held.issuer, self._fetch_seconds)
            if held.keys is None or document != held.document:
                held.keys = parse_key_set(document, held.issuer)
                held.document, held.generation = document, next(self._generations)
            held.confirmed_at, held.error = held.attempted_at, ""
        except DependencyFault as fault:
            held.error = fault.detail
        finally:
            held.fetch = None

    def _status(self, held: _Held) -> KeyStatus:
        if held.keys is None:
            return KeyStatus(held.issuer.name, 0, None, held.error, ())
        age = self._clock.monotonic() - held.confirmed_at
        return KeyStatus(held.issuer.name, len(held.keys.keys), age, held.error, held.keys.skipped)


def _source(issuer: Issuer) -> _Source:
    return (
        issuer.issuer,
        issuer.algorithms,
        issuer.jwks_file,
        issuer.jwks_uri,
        issuer.discovery,
        issuer.ca_file,
        issuer.max_staleness,
    )


def _pause_seconds(issuer: Issuer) -> float:
    return FILE_SECONDS if issuer.jwks_file is not None else PAUSE_SECONDS


def _may_fetch(held: _Held, now: float) -> bool:
    """Say whether somebody who needs a key may have it fetched now, and count it if so."""
    since = now - held.attempted_at
    if held.keys is None or held.error or held.issuer.jwks_file is not None:
        return since >= _pause_seconds(held.issuer)
    if since < KID_SECONDS or held.kids_until - now > (KID_BURST - 1) * PAUSE_SECONDS:
        return False
    held.kids_until = max(held.kids_until, now) + PAUSE_SECONDS
    return True


def _refresh_seconds(held: _Held) -> float:
    if held.keys is None or held.error or held.issuer.jwks_file is not None:
        return _pause_seconds(held.issuer)
    return min(REFRESH_SECONDS, held.issuer.max_staleness / 2)  # a second chance before they are gone


async def _cancel(held: _Held) -> None:
    if held.fetch is not None:
        held.fetch.cancel()
        await asyncio.wait({held.fetch})


async def _document(issuer: Issuer, seconds: float) -> bytes:
    """Return the bytes of the issuer's key set. Raise DependencyFault(KEYS_UNAVAILABLE)."""
    try:
        async with asyncio.timeout(seconds):
            if issuer.jwks_file is not None:
                return await asyncio.to_thread(_read_file, issuer.jwks_file)
            return await _download(issuer)
    except TimeoutError as exc:
        raise DependencyFault(Reason.KEYS_UNAVAILABLE, f"no answer within {seconds:g} s") from exc
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as exc:
        raise DependencyFault(Reason.KEYS_UNAVAILABLE, f"{type(exc).__name__}: {exc}"[:MAX_ERROR_CHARS]) from exc


def _read_file(path: str) -> bytes:
    if not Path(path).is_file():  # opening a FIFO would wait for ever
        raise DependencyFault(Reason.KEYS_UNAVAILABLE, f"{path} is not a file")
    with Path(path).open("rb") as file:
        return file.read(MAX_DOCUMENT_BYTES + 1)


async def _download(issuer: Issuer) -> bytes:
    start = configuration_url(issuer) if issuer.discovery else permitted(issuer.jwks_uri or "")
    # A client per fetch: no cookie, connection or trust survives it. The trust store is read off the loop. Its timeout
    # is for each read, which a byte a second never meets; the deadline of the whole is the caller's.
    trust = await asyncio.to_thread(ssl.create_default_context, cafile=issuer.ca_file)
    async with httpx.AsyncClient(
        verify=trust, trust_env=False, follow_redirects=False, timeout=FETCH_SECONDS, headers=_HEADERS
    ) as client:
        document = await _get(client, start)
        return await _get(client, discovered_jwks_uri(document, issuer)) if issuer.discovery else document


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    async with client.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:  # a redirect too: keys do not come from where somebody points
            raise DependencyFault(Reason.KEYS_UNAVAILABLE, f"{url} answered {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise DependencyFault(Reason.KEYS_UNAVAILABLE, f"{url} answered more than {MAX_DOCUMENT_BYTES} bytes")
        return bytes(body)
