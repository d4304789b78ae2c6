"""A real process that appends pairs as fast as it can and says which it was promised. Killed by test_audit_kill."""

import asyncio
import os
import sys
from pathlib import Path

from stories import FACTS, QUICK, SystemClock, plain_completion, plain_decision

from proxy.adapters.journal import Durability, Journal, ensure_keys


async def main(root: Path, durability: str) -> None:
    journal = await Journal.open(
        root / "audit",
        signer=ensure_keys(root / "keys").signer,
        clock=SystemClock(),
        facts=FACTS,
        durability=Durability(durability),
        limits=QUICK,
    )

    async def client() -> None:
        while True:
            event = os.urandom(16).hex()
            await journal.append(plain_decision(event))
            os.write(1, f"d {event}\n".encode())  # unbuffered: what is told is what was promised
            await journal.append(plain_completion(event))
            os.write(1, f"c {event}\n".encode())

    await asyncio.gather(*(client() for _ in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
