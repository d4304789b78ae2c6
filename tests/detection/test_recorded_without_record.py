"""`failure: open` lets requests pass without a record, and no input of theirs: what is not on record is not kept."""

from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.app.recording import Recording
from proxy.exchange import Action, Cost, Exchange, Passed, Query, Target
from proxy.policy.model import Recorded
from proxy.record import UNRECORDED, Event, Position
from tests.gateway.simulators import EVENT, NOW, StillClock, call, principal

PEM = X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
MODELS = MappingProxyType({"iris": SimpleNamespace(recorded=Recorded(PEM, "0" * 16, 10, 86_400))})
THERE = Position("stream", 7, "00")


class Journal:
    """A trail that gives one answer."""

    def __init__(self, answer: Position) -> None:
        self.answer = answer

    async def append(self, event: Event) -> Position:
        return self.answer


CASES = [
    ("everything is on record", THERE, THERE, THERE, 1),
    ("no decision", THERE, UNRECORDED, THERE, 0),
    ("no completion", THERE, THERE, UNRECORDED, 0),
    ("nothing says that a file was begun", UNRECORDED, THERE, THERE, 0),
]


@pytest.mark.parametrize(("file", "decision", "completion", "kept"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
async def test_what_is_not_on_record_is_not_kept(
    tmp_path: Path, file: Position, decision: Position, completion: Position, kept: int
) -> None:
    policy = SimpleNamespace(models=MODELS)
    recording = Recording(tmp_path, 1 << 30, lambda: policy, Journal(file), StillClock())  # type: ignore[arg-type, return-value]
    recording.policy_changed()
    asked = Exchange(EVENT, call(), NOW, "p" * 64, EVENT, EVENT[:16], target=Target(Action.INFER, "iris"))
    asked.principal, asked.status, asked.verdict = principal("analyst"), 200, Passed()
    asked.query = Query(Cost(rows=1), b"{}", (), np.ones((1, 4), np.float32))
    recording.finished(asked, decision, completion)
    await recording.close()
    assert (recording.counts["recorded"], len(list(tmp_path.iterdir()))) == (kept, kept)
