"""What a large policy costs: 1,000 rules, 200 models, 100 roles to compile, and one decision under it.

    python benchmarks/policy_size.py

prints CPU time, so that other work on the machine counts little. The targets: compiled in 1 s, decided in 20 µs at the
median. The rules' conditions are of every kind; each question is another caller, and what it meets is counted.
"""

import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from proxy.exchange import Action, Grant, Principal, Target
from proxy.policy.compile import compile_policy
from proxy.policy.decide import authorize
from proxy.policy.model import Policy

RULES, MODELS, ROLES = 1_000, 200, 100
COMPILED, DECIDED = 5, 20_000  # how often
NOW = 1_800_000_000

HEAD = """\
version: v1
issuers:
  corp: {issuer: "https://idp.example.com", audience: proxy, jwks_uri: "https://idp.example.com/jwks",
         algorithms: [ES256], roles_claim: roles}
upstreams:
  main: {url: "http://127.0.0.1:8080", dialect: oip-v2}
budgets:
  some: [60 requests/minute, 1000 rows/day]
outputs:
  coarse: {decimals: 2}
models:
"""
CONDITIONS = ("", ", networks: [192.0.2.0/24]", ', hours: ["mon-sun 00:00-24:00 UTC"]', ", clients: [notebook]")


def text() -> str:
    """Return the policy. No rule is in vain: those of one role are about different models."""
    models = "".join(f"  m{number}: {{upstream: main}}\n" for number in range(MODELS))
    rules = "".join(
        f"  - id: r{n}\n    allow: {{roles: [role{n % ROLES}], actions: [infer, metadata],"
        f" models: [m{place(n)}, m{place(n, 7)}]{CONDITIONS[n // 3 % len(CONDITIONS)]}}}\n"
        "    mfa: {max_age: 8h}\n    budget: some\n    output: coarse\n"
        for n in range(RULES)
    )
    return f"{HEAD}{models}rules:\n{rules}"


def place(rule: int, beside: int = 0) -> int:
    """Return the number of a model of a rule."""
    return (rule % ROLES + MODELS // (RULES // ROLES) * (rule // ROLES) + beside) % MODELS


def caller(chance: random.Random) -> Principal:
    """Return somebody with three of the roles."""
    roles = frozenset(f"role{chance.randrange(ROLES)}" for _ in range(3))
    factors = frozenset({"pwd", "otp"})
    return Principal("corp", "alice", roles, factors, None, NOW - 60, NOW - 60, NOW + 60, "t", b"", "k", "notebook")


def decided(policy: Policy) -> tuple[list[int], Counter[str]]:
    """Return nanoseconds of CPU for each decision, and what was decided."""
    chance, upstream = random.Random(7), policy.upstreams["main"]
    found, said = [], Counter[str]()
    for _ in range(DECIDED):
        who, target = caller(chance), Target(Action.INFER, f"m{chance.randrange(MODELS)}")
        begun = time.process_time_ns()
        decision = authorize(policy, who, target, upstream, "192.0.2.7", now=NOW)
        found.append(time.process_time_ns() - begun)
        said["allow" if isinstance(decision, Grant) else decision.reason] += 1
    return found, said


def main() -> None:
    """Compile, decide, print."""
    source = {"policy.yaml": text().encode()}
    seconds = []
    for _ in range(COMPILED):
        begun = time.process_time()
        policy = compile_policy(source)
        seconds.append(time.process_time() - begun)
    print(
        f"compile {RULES} rules, {MODELS} models: median {statistics.median(seconds):.2f} s, best {min(seconds):.2f} s"
    )
    found, said = decided(policy)
    quantiles = statistics.quantiles(found, n=100)
    print(f"decide: median {quantiles[49] / 1e3:.1f} µs, p99 {quantiles[98] / 1e3:.1f} µs ({dict(said)})")


if __name__ == "__main__":
    main()
