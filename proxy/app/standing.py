"""The policy that stands: read, compiled, its detectors loaded, its upstreams known. All of it, or the one before.

A reload that fails changes nothing and says so everywhere: in the log, in `/readyz`, in the metrics, in the journal.
A request keeps the snapshot that it began with.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from proxy.adapters.detector import load_detector
from proxy.adapters.golden import load_golden
from proxy.adapters.keys import JwksKeyRing
from proxy.adapters.upstream import HttpUpstreamClient, Prepared
from proxy.adapters.watch import changes, read_directory, state
from proxy.app.seal import Seal
from proxy.dialects import DIALECTS
from proxy.documents import render
from proxy.errors import ConfigError, DependencyFault, Finding
from proxy.gateway import Snapshot
from proxy.policy.compile import compile_policy
from proxy.policy.model import AllowRule, Policy
from proxy.policy.route import routes
from proxy.ports import Trail
from proxy.record import PolicyChange

_log = logging.getLogger("hip.policy")


class Standing:
    """The snapshot that new requests get. `error` is what the last reload found wrong, empty when it was good."""

    def __init__(
        self, directory: Path, upstreams: HttpUpstreamClient, seal: Seal | None = None, *, recordings: bool = False
    ) -> None:
        self._directory = directory
        self._recordings = recordings  # whether there is a place for recorded inputs
        self._upstreams = upstreams
        self._seal = seal
        self.error = ""
        self._seen = state(directory)  # before it is read: a change from now on is not missed
        self.snapshot, prepared = self._load()
        upstreams.install(prepared)

    def current(self) -> Snapshot:
        """Return the snapshot for one request."""
        return self.snapshot

    async def follow(
        self, trail: Trail, key_ring: JwksKeyRing, stop: asyncio.Event, changed: Callable[[], None]
    ) -> None:
        """Reload after each change of the directory, until `stop`. `changed` hears of every attempt."""
        async for _ in changes(self._directory, stop, since=self._seen):
            previous = self.snapshot.policy.digest
            try:
                snapshot, prepared = await asyncio.to_thread(self._load)
            except ConfigError as error:
                self.error = str(error)
                event = PolicyChange(
                    effect="rejected", policy=previous, previous=previous, findings=len(error.findings)
                )
                _log.error("the policy was not reloaded; the one before still serves\n%s", error)
            else:
                if snapshot.policy.digest == previous and not self.error:
                    continue  # a file was touched, and says the same
                await key_ring.load(snapshot.policy.issuers.values())
                self._upstreams.install(prepared)
                self.snapshot, self.error = snapshot, ""
                digest = snapshot.policy.digest
                event = PolicyChange(effect="loaded", policy=digest, previous=previous)
                _log.info("policy %s serves from now on", digest)
            changed()
            try:
                await trail.append(event)
            except DependencyFault as error:  # the journal says so itself, and nothing is served until it can
                _log.error("a policy change is not in the journal: %s", error.detail)

    def _load(self) -> tuple[Snapshot, Prepared]:
        files = read_directory(self._directory)
        policy = compile_policy(files, dialects=DIALECTS, root=str(self._directory))
        for warning in policy.warnings:
            _log.warning("%s", render([warning], files))
        findings: list[Finding] = []
        if not self._recordings:
            findings += _without_a_place(self._directory, policy)
        detectors = {}
        for name, entry in policy.detectors.items():
            try:
                detectors[name] = load_detector(Path(entry.file), entry.sha256, _judged_by(name, policy))
            except ConfigError as error:
                findings += error.findings
        golden = {}
        for probe in policy.probes:
            try:
                golden[probe.sha256] = load_golden(Path(probe.file), probe.sha256)
            except ConfigError as error:
                findings += error.findings
        if findings:
            raise ConfigError(findings)
        prepared = self._upstreams.prepare(policy.upstreams.values())
        if self._seal is not None:  # last: what is remembered is what serves
            self._seal.admit(self._directory, policy.digest)
        return Snapshot(policy, routes(policy), detectors, golden), prepared


def _without_a_place(directory: Path, policy: Policy) -> list[Finding]:
    hint = "name one as `recordings: {directory: …}` in hip.yaml, or delete `record_inputs`"
    return [
        Finding(str(directory), 0, 0, f"inputs of `{name}` are to be recorded, and there is no place for them", hint)
        for name, model in policy.models.items()
        if model.recorded is not None
    ]


def _judged_by(detector: str, policy: Policy) -> set[str]:
    """Return the models whose inputs a detector judges."""
    allows = [rule for rule in policy.rules if isinstance(rule, AllowRule)]
    return {
        model
        for rule in allows
        if rule.detector is not None and rule.detector.name == detector
        for model in rule.scope.models
    }
