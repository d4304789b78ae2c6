"""One candidate of `transports.py` in its own process: reads commands as JSON lines, answers in JSON lines."""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import uvloop
from transport_safety import questions

Call = Callable[[str, str, bytes], Awaitable[tuple[int, bytes]]]  # method, path, body → status, body
Close = Callable[[], Awaitable[None]]

HEADERS = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"identity"),
    (b"via", b"1.1 hip"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)
WORDS = [(name.decode(), value.decode()) for name, value in HEADERS]
TIMEOUT = 10.0  # seconds
CONNECTIONS = 64
MAX_BODY = 16 << 20  # bytes
WARM_UP = 50  # requests
BODIES = {
    "small": json.dumps({"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}).encode(),
    "large": b'{"data": "' + b"x" * (1 << 20) + b'"}',
}


def httpx_transport(port: int) -> tuple[Call, Close]:
    """httpx's own transport, called directly: no client, so no cookies, no redirects, no decoding."""
    import httpx

    transport = httpx.AsyncHTTPTransport(
        trust_env=False, limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    )
    url = httpx.URL(f"http://127.0.0.1:{port}/")
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT)
    host = (b"host", b"127.0.0.1:%d" % port)

    async def call(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        length = (b"content-length", b"%d" % len(body))
        extensions = {"target": path.encode(), "timeout": timeout}
        headers = [host, *HEADERS, length]
        stream = httpx.ByteStream(body)
        request = httpx.Request(method, url, headers=headers, stream=stream, extensions=extensions)
        response = await transport.handle_async_request(request)
        try:
            return response.status_code, b"".join([piece async for piece in response.stream])
        finally:
            await response.aclose()

    return call, transport.aclose


def aiohttp_session(port: int) -> tuple[Call, Close]:
    """aiohttp without cookies, redirects, decoding and environment."""
    import aiohttp
    import yarl

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
    )
    urls: dict[str, yarl.URL] = {}

    async def call(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        url = urls.get(path) or urls.setdefault(path, yarl.URL(f"http://127.0.0.1:{port}{path}", encoded=True))
        async with session.request(method, url, data=body, headers=WORDS, allow_redirects=False) as response:
            return response.status, await response.read()

    return call, session.close


def pyreqwest_client(port: int) -> tuple[Call, Close]:
    """Reqwest without cookies, redirects, decoding and proxies."""
    from datetime import timedelta

    from pyreqwest.client import ClientBuilder

    builder = (
        ClientBuilder().no_proxy().follow_redirects(enable=False).referer(enable=False).max_connections(CONNECTIONS)
    )
    builder = builder.gzip(enable=False).brotli(enable=False).zstd(enable=False).deflate(enable=False)
    client = builder.default_cookie_store(enable=False).timeout(timedelta(seconds=TIMEOUT)).build()

    async def call(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        request = client.request(method, f"http://127.0.0.1:{port}{path}").headers(WORDS).body_bytes(body).build()
        response = await request.send()
        return response.status, bytes(await response.bytes())

    return call, client.close


def hip_upstream(port: int) -> tuple[Call, Close]:
    """Ours, through the port that the gateway uses."""
    from proxy.adapters.upstream import HttpUpstreamClient
    from proxy.exchange import Outbound, Upstream

    client = HttpUpstreamClient()
    upstream = Upstream("u", "http", "127.0.0.1", port, "", "oip-v2", TIMEOUT, TIMEOUT, MAX_BODY, CONNECTIONS)

    async def call(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        reply = await client.send(upstream, Outbound(method, path, HEADERS, body))
        return reply.status, reply.body

    return call, client.close


CANDIDATES: dict[str, tuple[str, Callable[[int], tuple[Call, Close]]]] = {
    "httpx": ("httpx", httpx_transport),
    "aiohttp": ("aiohttp", aiohttp_session),
    "pyreqwest": ("pyreqwest", pyreqwest_client),
    "hip": ("httpx", hip_upstream),
}


async def run(call: Call, path: str, connections: int, seconds: float) -> dict[str, float]:
    """Ask as fast as it goes for some seconds; milliseconds of latency, microseconds of CPU, megabytes."""
    body, target = BODIES[path], f"/{path}"
    latencies: list[float] = []

    async def ask_until(end: float) -> None:
        while (begun := time.perf_counter()) < end:
            status, _ = await call("POST", target, body)
            if status != 200:
                raise RuntimeError("the upstream does not answer 200")
            latencies.append(time.perf_counter() - begun)

    for _ in range(WARM_UP):
        await call("POST", target, body)
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*[ask_until(begun + seconds) for _ in range(connections)])
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    latencies.sort()
    count = len(latencies)
    return {
        "rate": count / took,
        "p50": latencies[count // 2] * 1e3,
        "p99": latencies[count * 99 // 100] * 1e3,
        "cpu": cpu / count * 1e6,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def main(name: str, port: int) -> None:
    package, make = CANDIDATES[name]
    call, close = make(port)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match json.loads(line):
            case ["hello"]:
                answer: object = {"version": version(package)}
            case ["run", path, connections, seconds]:
                answer = await run(call, path, connections, seconds)
            case _:
                answer = await questions(make)
        print(json.dumps(answer), flush=True)
    await close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
