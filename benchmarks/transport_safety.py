"""What a client does with an upstream that is wrong: each question is asked on a real socket, none from memory."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

Call = Callable[[str, str, bytes], Awaitable[tuple[int, bytes]]]
Make = Callable[[int], tuple[Call, Callable[[], Awaitable[None]]]]
PATIENCE = 0.5  # seconds that a client may wait for what does not come

LATER, CLOSE = "later", "close"
FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
POISON = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
HEAD = b"HTTP/1.1 200 OK\r\n"


class Scripted:
    """Answers the n-th request with the n-th list of steps; afterwards with FINE."""

    def __init__(self, script: Sequence[Sequence[bytes | str]] = ()) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
                await reader.readexactly(length)
                self.requests.append(head)
                for step in self.script.pop(0) if self.script else [FINE]:
                    if step == LATER:
                        await asyncio.sleep(0.05)
                    elif step == CLOSE:
                        writer.close()
                        return
                    else:
                        writer.write(step)  # type: ignore[arg-type]


async def ask(call: Call, path: str = "/", body: bytes = b"{}") -> bytes | None:
    """Return the body of an answer, None for a refusal."""
    try:
        return (await asyncio.wait_for(call("POST", path, body), PATIENCE))[1]
    except Exception:  # noqa: BLE001 - whatever a client raises, it is a refusal
        return None


async def next_answer(make: Make, script: Sequence[Sequence[bytes | str]]) -> str:
    """Ask twice; say what the second one heard, and whether on the same connection."""
    upstream = Scripted(script)
    async with upstream as port:
        call, close = make(port)
        await ask(call)
        await asyncio.sleep(0.1)
        second = await ask(call)
        await close()
    words = {b"poison": "POISONED", b"fine": "closed" if upstream.connections > 1 else "kept", None: "error"}
    return words.get(second, "other")


async def accepts(make: Make, *answer: bytes | str) -> str:
    """Say whether a client takes an answer."""
    async with Scripted([answer]) as port:
        call, close = make(port)
        body = await ask(call)
        await close()
    return "refused" if body is None else "ACCEPTED"


async def cookie(make: Make) -> str:
    upstream = Scripted([[b"HTTP/1.1 200 OK\r\nset-cookie: a=b; path=/\r\ncontent-length: 0\r\n\r\n"]])
    async with upstream as port:
        call, close = make(port)
        await ask(call)
        await ask(call)
        await close()
    return "KEPT" if b"\r\ncookie:" in upstream.requests[-1] else "dropped"


async def redirect(make: Make) -> str:
    target = Scripted()
    async with target as elsewhere:
        location = b"location: http://127.0.0.1:%d/\r\n" % elsewhere
        async with Scripted([[b"HTTP/1.1 307 T\r\n" + location + b"content-length: 0\r\n\r\n"]]) as port:
            call, close = make(port)
            await ask(call)
            await close()
    return "FOLLOWED" if target.requests else "answer"


async def gzip(make: Make) -> str:
    packed = bytes.fromhex("1f8b0800000000000003ab56ca48cdc9c957b2525028cf2fca4951aa05005a4bf71b11000000")
    fields = b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with Scripted([[HEAD + fields + packed]]) as port:
        call, close = make(port)
        body = await ask(call)
        await close()
    return "as it is" if body == packed else "DECODED"


async def environment(make: Make) -> str:
    trap = Scripted()
    async with trap as elsewhere, Scripted() as port:
        os.environ["http_proxy"] = os.environ["HTTP_PROXY"] = f"http://127.0.0.1:{elsewhere}"
        call, close = make(port)
        await ask(call)
        await close()
        del os.environ["http_proxy"], os.environ["HTTP_PROXY"]
    return "USED" if trap.requests else "ignored"


async def target_bytes(make: Make) -> str:
    upstream = Scripted()
    async with upstream as port:
        call, close = make(port)
        await ask(call, "/a/../b%2fc//d")
        await close()
    return "exact" if upstream.requests and b"/a/../b%2fc//d http" in upstream.requests[0] else "CHANGED"


async def repeats(make: Make) -> str:
    upstream = Scripted([[FINE], [CLOSE]])
    async with upstream as port:
        call, close = make(port)
        await ask(call)
        await ask(call)
        await close()
    return "REPEATED" if len(upstream.requests) > 2 else "error"


async def questions(make: Make) -> dict[str, str]:
    """Return every question with this client's answer; capitals are what we cannot have."""
    two_lengths = HEAD + b"content-length: 4\r\ncontent-length: 6\r\n\r\npoison"
    both = HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n"
    return {
        "a second answer behind the first": await next_answer(make, [[FINE + POISON]]),
        "a second answer a moment later": await next_answer(make, [[FINE, LATER, POISON]]),
        "one byte too many": await next_answer(make, [[FINE + b"\n"]]),
        "the rest of a body after a 304": await next_answer(
            make, [[b"HTTP/1.1 304 N\r\ncontent-length: 39\r\n\r\n" + POISON]]
        ),
        "POST, closed without an answer": await repeats(make),
        "a cookie for the next request": await cookie(make),
        "307": await redirect(make),
        "gzip": await gzip(make),
        "proxies of the environment": await environment(make),
        "the bytes of the target": await target_bytes(make),
        "content-length and chunked": await accepts(make, both),
        "two different lengths": await accepts(make, two_lengths),
        "transfer-encoding: gzip, chunked": await accepts(
            make, HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n"
        ),
        "obs-fold": await accepts(make, HEAD + b"x: 1\r\n 2\r\ncontent-length: 4\r\n\r\nfine"),
        "bare LF": await accepts(make, b"HTTP/1.1 200 OK\ncontent-length: 4\n\nfine"),
        "NUL in a field": await accepts(make, HEAD + b"x: \0\r\ncontent-length: 4\r\n\r\nfine"),
        "space before the colon": await accepts(make, HEAD + b"x : 1\r\ncontent-length: 4\r\n\r\nfine"),
        "a body cut short": await accepts(make, HEAD + b"content-length: 9\r\n\r\nfine", CLOSE),
        "1,000 interim responses": await accepts(make, b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + FINE),
        "101 unasked": await accepts(make, b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + FINE),
        "5,000 fields": await accepts(make, HEAD + b"x: 1\r\n" * 5000 + b"content-length: 4\r\n\r\nfine"),
    }
