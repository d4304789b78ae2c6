"""Content codings that an upstream used although it was asked for none (RFC 9110 section 8.4). Pure.

gzip and deflate are undone, at most to the size that an uncoded reply may have; every other coding, and a list of
several, is refused: what cannot be read cannot be hardened. Streams with a coding are refused by their dialect.
"""

import zlib
from collections.abc import Mapping
from types import MappingProxyType

from msgspec.structs import replace

from proxy.errors import UpstreamFault
from proxy.exchange import Reply
from proxy.reasons import Reason

# RFC 1952 and RFC 1950: zlib's own words for the container that it must find, and no other.
_CONTAINERS: Mapping[bytes, int] = MappingProxyType(
    {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
)


def plain(reply: Reply, limit: int) -> Reply:
    """Return the reply without its coding, its body at most `limit` bytes long. Raise UpstreamFault."""
    given = [value.strip().lower() for name, value in reply.headers if name == b"content-encoding"]
    if not given or given == [b"identity"]:
        return reply
    if len(given) > 1 or given[0] not in _CONTAINERS:
        raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "a content coding that was not asked for")
    decoder = zlib.decompressobj(_CONTAINERS[given[0]])
    try:
        body = decoder.decompress(reply.body, limit + 1)
    except zlib.error as exc:
        raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "a content coding that does not decode") from exc
    if len(body) > limit:
        raise UpstreamFault(Reason.UPSTREAM_TOO_LARGE, "a content coding that hides more than a reply may have")
    if not decoder.eof or decoder.unused_data:
        raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "a content coding with a torn end, or bytes after it")
    return replace(reply, headers=tuple(h for h in reply.headers if h[0] != b"content-encoding"), body=body)
