"""Yesterday's decisions against another policy: who gains, loses, hears more or less, hits a budget. Pure.

Only what the rules decided is replayed: a request that was refused before anybody was known, or that hangs on what a
record does not hold, is counted and said. Budgets are charged anew, record by record, from empty: the first of a
long window may seem to fit where it would not have.

Not guaranteed: that callers would have behaved the same.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from proxy.budget.account import Account
from proxy.exchange import Cost, Denial, Exhausted, Output
from proxy.policy import wording
from proxy.policy.coarseness import Turn, turn
from proxy.policy.model import AllowRule, Policy
from proxy.policy.recorded import Untold, decide_again, recorded
from proxy.reasons import Reason
from proxy.record import Decision, Obligations

AUTHORIZED = frozenset({Reason.NO_RULE, Reason.DENIED_BY_RULE, Reason.MFA_MISSING, Reason.MFA_TOO_OLD})


class Change(StrEnum):
    """What becomes of a request. In this order they are told: what opens first."""

    GAINS = "gains access"
    MFA = "another sign-in"
    FINER = "finer output"
    WITHIN = "within the budget now"
    DETECTOR = "another detector"
    BUDGET = "another budget"
    OTHER = "another output"
    COARSER = "coarser output"
    OVER = "over the budget"
    LOSES = "loses access"


_TURNS: Mapping[Turn, Change] = {
    Turn.FINER: Change.FINER,
    Turn.COARSER: Change.COARSER,
    Turn.OTHER: Change.OTHER,
}


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """Requests to which the same happens. `before` and `after` in words: the rule or reason, and what changes."""

    change: Change
    before: str
    after: str


@dataclass(slots=True)
class Replay:
    """The result so far; `add` each decision in order of time."""

    policy: Policy
    cases: dict[Case, Counter[str]] = field(default_factory=dict)  # by caller's pseudonym
    same: int = 0
    untold: Counter[str] = field(default_factory=Counter)  # why it could not be replayed
    before_rules: Counter[str] = field(default_factory=Counter)  # refused before a rule was asked, by reason
    _accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    _now: int = 0  # microseconds: an account's time does not go back

    def add(self, event: Decision, at: float) -> None:
        """Put one decision to the policy. `at` in UNIX seconds."""
        was_allowed = event.obligations is not None
        if event.actor is None or not (was_allowed or event.reason in AUTHORIZED):
            self.before_rules[event.reason] += 1
            return
        asked = recorded(event, at)
        again = asked if isinstance(asked, Untold) else decide_again(self.policy, asked)
        if isinstance(again, Untold):
            self.untold[f"{again.why}{_hanging(again)}"] += 1
            return
        found = list(self._changes(event, again, at))
        for case in found:
            self.cases.setdefault(case, Counter())[event.actor.subject] += 1
        self.same += not found

    def _changes(self, event: Decision, again: AllowRule | Denial, at: float) -> list[Case]:
        old = event.obligations
        if isinstance(again, Denial):
            return [Case(Change.LOSES, str(event.rule), _why(again))] if old is not None else []
        budget = self._charged(event, again, at)
        if old is None:
            before = _why(Denial(Reason(event.reason), event.rule))
            return [Case(Change.GAINS, before, f"{again.id}: {', '.join(wording.obligations(again))}"), *budget]
        return [*_compared(event, old, again), *budget]

    def _charged(self, event: Decision, rule: AllowRule, at: float) -> list[Case]:
        """Charge the other policy's budget, and say where it decides otherwise than the one before."""
        spent = event.spent
        cost = Cost(1) if spent is None else Cost(spent.requests, spent.rows, spent.tokens)
        caller = event.actor.subject if event.actor else ""
        self._now = max(self._now, int(at * 1e6))
        account = self._accounts.setdefault((caller, rule.budget.name), Account())
        refused = isinstance(account.charge(caller, rule.budget, cost, self._now), Exhausted)
        limits = f"{rule.id}: budget {rule.budget.name} ({wording.budget(rule.budget)})"
        was_refused = event.reason in {Reason.BUDGET_EXHAUSTED, Reason.COST_ABOVE_LIMIT}
        if refused and not was_refused:
            return [Case(Change.OVER, str(event.rule or event.reason), limits)]
        return [Case(Change.WITHIN, str(event.rule), limits)] if was_refused and not refused else []


def _compared(event: Decision, old: Obligations, rule: AllowRule) -> list[Case]:
    """Return what is different for somebody who is allowed under both."""
    found = []
    was = Output(old.output, old.decimals, old.top_k, old.label_only)
    if (kind := turn(was, rule.output)) is not Turn.SAME:
        found.append(_case(_TURNS[kind], event, rule, _said(was), _said(rule.output)))
    if old.mfa != (rule.mfa is not None):
        found.append(_case(Change.MFA, event, rule, *("MFA", "NO MFA")[:: 1 if old.mfa else -1]))
    if event.spent is not None and event.spent.budget != rule.budget.name:
        found.append(_case(Change.BUDGET, event, rule, event.spent.budget, rule.budget.name))
    judged = "no detector" if event.judged is None else f"detector {event.judged.detector} ({event.judged.mode})"
    judges = "no detector" if rule.detector is None else wording.detector(rule.detector)
    sees_input = event.action in {"infer", "stream"} and event.effect == "allow"
    if sees_input and judged != judges:
        found.append(_case(Change.DETECTOR, event, rule, judged, judges))
    return found


def _case(change: Change, event: Decision, rule: AllowRule, before: str, after: str) -> Case:
    return Case(change, f"{event.rule}: {before}", f"{rule.id}: {after}")


def _said(output: Output) -> str:
    return ", ".join(wording.output(output)) or "everything"


def _why(denial: Denial) -> str:
    return denial.reason + (f" ({denial.rule})" if denial.rule else "")


def _hanging(untold: Untold) -> str:
    return f": {', '.join(untold.rules)}" if untold.rules else ""
