"""What several workers say of themselves, as one: `/readyz` with the worst of each check, `/metrics` with a label.

Counters are not added up: a worker that starts again begins at zero, which Prometheus understands of one series and
nobody of a sum. `sum without (worker)` is the query for all of them.
"""

import re
from collections.abc import Callable, Mapping

from proxy.admin import Check, Health, Readiness

_SAMPLE = re.compile(rb"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? ")
_FAMILY = re.compile(rb"^# HELP ", re.MULTILINE)
_RANK = (Health.OK, Health.WARNING, Health.FAILED)


def merged_readiness(workers: Mapping[int, Readiness | None], *, draining: bool) -> Readiness:
    """Return the state of all. `None`: the worker is not there, or says nothing; ready as long as another one is."""
    present = {worker: said for worker, said in workers.items() if said is not None}
    checks: dict[str, Check] = {}
    for worker, said in present.items():
        for name, check in said.checks.items():
            if name not in checks or _RANK.index(check.health) > _RANK.index(checks[name].health):
                told = check if check.health is Health.OK else Check(check.health, f"worker {worker}: {check.detail}")
                checks[name] = told
    away = [str(worker) for worker, said in workers.items() if said is None]
    health = Health.FAILED if not present else Health.WARNING if away else Health.OK
    checks["workers"] = Check(health, f"not serving: {', '.join(away)}" if away else f"{len(present)} serve")
    policies = {said.policy for said in present.values()}
    if len(policies) > 1:
        checks["policies"] = Check(Health.WARNING, f"{len(policies)} different ones serve: a reload is under way")
    return Readiness(min(policies, default=""), draining, checks)


def merged_metrics(pages: Mapping[int, bytes]) -> bytes:
    """Return one page: every sample with its worker, every family in one piece (OpenMetrics wants it so)."""
    families: dict[bytes, list[bytes]] = {}
    for worker, page in pages.items():
        for block in _FAMILY.split(page)[1:]:
            help_line, type_line, *samples = block.splitlines(keepends=True)
            family = families.setdefault(b"# HELP " + help_line + type_line, [])
            family += [_SAMPLE.sub(_labelled(worker), sample) for sample in samples]
    return b"".join(piece for head, samples in families.items() for piece in (head, *samples))


def _labelled(worker: int) -> Callable[[re.Match[bytes]], bytes]:
    def label(match: re.Match[bytes]) -> bytes:
        others = match[2] + b"," if match[2] else b""
        return b'%s{%sworker="%d"} ' % (match[1], others, worker)

    return label
