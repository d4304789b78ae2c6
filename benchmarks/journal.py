"""What the audit trail costs: a record, a span, a verification, a report. Run with the product's own environment.

    .venv/bin/python benchmarks/journal.py [--records 1000000] [--keep DIRECTORY]

The history is made by the real stream with a clock of its own: 30 days, a refusal among twelve requests, two
detectors, one policy change a day. Times are of this process's CPU; the peak of memory is that of a fresh process.
"""

import argparse
import asyncio
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "audit")]

from stories import FACTS, PSEUDONYMS, ManualClock, Place, SystemClock, exchange, place  # noqa: E402

from proxy.adapters.journal import Durability, Journal, Limits  # noqa: E402
from proxy.adapters.journal.anchors import AnchorLog  # noqa: E402
from proxy.adapters.journal.disk import Disk  # noqa: E402
from proxy.adapters.journal.reading import Kept, total_bytes, verify  # noqa: E402
from proxy.adapters.journal.stream import Stream  # noqa: E402
from proxy.adapters.spans import Spans  # noqa: E402
from proxy.audit.describe import completion, decision  # noqa: E402
from proxy.audit.note import Verifier  # noqa: E402
from proxy.record import (  # noqa: E402
    Actor,
    Completion,
    Decision,
    Judged,
    Obligations,
    PolicyChange,
    Position,
    Source,
    Spent,
    Stop,
    UpstreamError,
)

DAYS = 30
CLIENTS = 40
REFUSALS = (
    ("no_rule", 403, 6),
    ("mfa_missing", 401, 4),
    ("budget_exhausted", 429, 8),
    ("token_expired", 401, 5),
    ("anomalous_input", 400, 2),
    ("schema_mismatch", 400, 3),
    ("mfa_too_old", 401, 1),
    ("unknown_model", 404, 1),
)


def make_history(where: Place, records: int, seed: int = 1) -> None:
    """Write a closed history of one worker."""
    chance = random.Random(seed)
    clock = ManualClock()
    log, disk = AnchorLog(where.directory), Disk()
    stream = Stream.begin(where.directory, where.keys.signer, clock, disk, log, FACTS, 3_600)
    step = DAYS * 86_400 / (records / 2)
    lines: list[bytes] = []
    day, left = 0, dict.fromkeys(range(CLIENTS), 1_000)
    since = clock.seconds
    requests = 0
    while stream.size < records:
        clock.go(step * chance.uniform(0.2, 1.8))
        if stream.key_expired or clock.mono - stream.segment_since > 3_600 or stream.bytes > 64 << 20:
            stream.write(b"".join(lines))
            lines.clear()
            stream.rotate()
        today = int((clock.seconds - since) // 86_400)
        if today > day:
            day, left = today, dict.fromkeys(range(CLIENTS), 1_000)
            change = PolicyChange(effect="loaded", policy=f"{today:064x}", previous=f"{today - 1:064x}")
            lines.append(stream.record(change)[0])
        requests += 1
        lines += [stream.record(event)[0] for event in request(chance, left, day)]
        if stream.size - stream.sealed > 1_000:
            lines.append(stream.checkpoint())
            stream.write(b"".join(lines))
            lines.clear()
    if stream.key_expired:
        stream.rotate()
    stream.write(b"".join([*lines, stream.record(Stop(requests=requests))[0], stream.checkpoint()]))
    stream.syncing()()
    with log.locked() as fd:
        log.append(fd, "end", stream.head())
    stream.release()


def request(chance: random.Random, left: dict[int, int], day: int) -> list[Decision | Completion]:
    """Return the records of one request."""
    event = f"{chance.getrandbits(128):032x}"
    number = min(int(chance.expovariate(0.12)), CLIENTS - 1)
    strange = (number == 3 and chance.random() < 0.2) or chance.random() < 0.004
    statistic = chance.uniform(3.0, 6.0) if strange else chance.lognormvariate(0.1, 0.4)
    refused = chance.random() < 0.08
    reason, status = "allowed", None
    if refused:
        reason, status, _ = chance.choices(REFUSALS, [weight for *_, weight in REFUSALS])[0]
    if not refused:
        left[number] = max(0, left[number] - 1)
    made = Decision(
        event=event,
        effect="deny" if refused else "allow",
        reason=reason,
        policy=f"{day:064x}",
        method="POST",
        source=Source(address=f"e1.{number:022d}", tls="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384"),
        trace=event,
        span=event[:16],
        action="infer",
        model="digits" if number % 3 else "iris",
        version="1",
        dialect="oip-v2",
        rule="analysts-read-scores",
        actor=Actor(
            subject=f"efcab7.client{number:016d}",
            issuer="corp",
            roles=("analyst",),
            factors=("otp", "pwd"),
            token=f"efcab7.{number:022d}",
            key_id="k1",
        ),
        obligations=Obligations("coarse", 2, 1),
        spent=Spent("trial", 1, 4, 0, (left[number], 20_000 - 4 * (1_000 - left[number])), 7),
        judged=Judged(
            "digits",
            ("d" if day < DAYS // 2 else "e") * 64,
            "enforce",
            0.4,
            0.01,
            statistic,
            3.0,
            0,
            "degrade" if statistic > 3 else "pass",
        ),
        input_hash="efcab7.0123456789012345678901",
        input_bytes=812,
        status=status,
    )
    if refused:
        return [made]
    failed = chance.random() < 0.003
    error = UpstreamError(812, "f" * 64, "application/json", ("ValueError",), ("mlserver/handlers.py:88",))
    return [
        made,
        Completion(
            event=event,
            reason="upstream_error" if failed else "allowed",
            status=502 if failed else 200,
            applied=None if failed else Obligations("coarse", 2, 1),
            upstream="digits",
            upstream_status=500 if failed else 200,
            upstream_ms=chance.uniform(2, 30),
            upstream_error=error if failed else None,
            answer_bytes=300,
        ),
    ]


def microseconds(samples: list[float]) -> str:
    ordered = sorted(samples)
    return f"median {statistics.median(ordered) * 1e6:.1f} µs, p99 {ordered[len(ordered) * 99 // 100] * 1e6:.1f} µs"


async def record_cost(root: Path, rounds: int) -> None:
    """Time a record from evidence to the kernel, and the spans of the same exchange."""
    where = place(root)
    quiet = Limits(warn_free=0, deny_free=0)
    journal = await Journal.open(
        where.directory,
        signer=where.keys.signer,
        clock=SystemClock(),
        facts=FACTS,
        durability=Durability.GROUP,
        limits=quiet,
    )
    story, waited, described = exchange(), [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        made = decision(story, PSEUDONYMS)
        described.append(time.perf_counter() - begin)
        await journal.append(made)
        middle = time.perf_counter()
        await journal.append(completion(story, PSEUDONYMS))
        waited += [middle - begin, time.perf_counter() - middle]
    print(f"a record, described, chained, written, acknowledged: {microseconds(waited)}")
    print(f"  of that, describing a decision: {microseconds(described)}")
    await journal.close()
    spans = Spans(endpoint=None, file=root / "spans.jsonl", pseudonyms=PSEUDONYMS)
    taken = []
    for at in range(rounds):
        begin = time.perf_counter()
        spans.finished(story, Position("s", at, "a" * 64), Position("s", at, "b" * 64))
        taken.append(time.perf_counter() - begin)
        if at % 500 == 0:
            await asyncio.sleep(0.05)  # the thread's turn
    print(f"three spans, described and encoded: {microseconds(taken)}")
    await spans.close()


def verify_speed(where: Path, key: Verifier, records: int) -> None:
    for name, hash_only in (("in full", False), ("hash-only", True)):
        begin = time.process_time()
        found = verify(where, key, Kept(), hash_only=hash_only)
        seconds = time.process_time() - begin
        print(f"verify {name}: {records / seconds:,.0f} records/s ({seconds:.1f} s CPU), {found.status.name}")


def report_cost(where: Path, key: Path, root: Path) -> None:
    begin = time.perf_counter()
    command = [sys.executable, "-m", "proxy", "audit", "report", str(where), "-o", str(root / "report.html")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([*command, "--public-key", str(key)], check=True, cwd=ROOT)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"report: {time.perf_counter() - begin:.1f} s, {used.ru_utime - before:.1f} s CPU, "
        f"{used.ru_maxrss / 1024:.0f} MB, {(root / 'report.html').stat().st_size:,} bytes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="make the history here, and leave it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        asyncio.run(record_cost(root / "cost", 20_000))
        where = place(root / "history")
        begin = time.perf_counter()
        make_history(where, options.records)
        size = total_bytes(where.directory)
        print(
            f"history: {options.records:,} records, {size / 1e6:,.0f} MB, {time.perf_counter() - begin:.0f} s to make"
        )
        verify_speed(where.directory, where.auditor, options.records)
        report_cost(where.directory, root / "history" / "keys" / "audit.pub", root)


if __name__ == "__main__":
    main()
