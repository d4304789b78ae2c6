"""Content codings that nobody asked for: undone under a cap, or refused."""

import gzip
import zlib

import pytest

from proxy.dialects.coding import plain
from proxy.errors import UpstreamFault
from proxy.exchange import Reply
from proxy.reasons import Reason

BODY = b'{"scores": [0.98155]}'
LIMIT = 1000  # bytes


def coded(coding, body):
    return Reply(200, ((b"content-type", b"application/json"), (b"content-encoding", coding)), body)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", gzip.compress(BODY, mtime=0)),
        (b"X-GZIP", gzip.compress(BODY, mtime=0)),
        (b"deflate", zlib.compress(BODY)),
    ],
)
def test_what_zlib_knows_is_undone(coding, body):
    assert plain(coded(coding, body), LIMIT) == Reply(200, ((b"content-type", b"application/json"),), BODY)


def test_what_is_plain_stays_as_it_is():
    for reply in (Reply(200, (), BODY), coded(b"identity", BODY)):
        assert plain(reply, LIMIT) is reply


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (coded(b"br", BODY), Reason.UPSTREAM_UNREADABLE),
        (coded(b"gzip, gzip", gzip.compress(gzip.compress(BODY, mtime=0))), Reason.UPSTREAM_UNREADABLE),
        (coded(b"gzip", BODY), Reason.UPSTREAM_UNREADABLE),
        (coded(b"gzip", gzip.compress(BODY, mtime=0)[:-4]), Reason.UPSTREAM_UNREADABLE),
        (coded(b"gzip", gzip.compress(BODY, mtime=0) + b"0.98155"), Reason.UPSTREAM_UNREADABLE),
        (coded(b"gzip", b""), Reason.UPSTREAM_UNREADABLE),
        (coded(b"gzip", gzip.compress(bytes(50_000_000), mtime=0)), Reason.UPSTREAM_TOO_LARGE),
        (coded(b"deflate", zlib.compress(bytes(LIMIT + 1))), Reason.UPSTREAM_TOO_LARGE),
    ],
    ids=["br", "two", "not coded", "torn", "bytes behind it", "empty", "a bomb", "one byte too many"],
)
def test_everything_else_is_refused(reply, reason):
    with pytest.raises(UpstreamFault) as caught:
        plain(reply, LIMIT)
    assert caught.value.reason is reason
