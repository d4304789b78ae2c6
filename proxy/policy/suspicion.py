"""Builds what a rule does about suspicious sequences: the ladder, complete and rising.

Refusing is never the answer to `colluding`: it says that rows of several callers lie near each other, not whose fault
it is, and a caller could get another one refused by asking near what that one will ask.
"""

from types import MappingProxyType

from proxy.errors import Finding
from proxy.exchange import DetectorUse, Mode, Pattern, SequenceUse, Suspicion
from proxy.policy.merging import Entry
from proxy.policy.model import DetectorFile
from proxy.policy.schema import DetectorChoice, LadderEntry, RuleEntry


def detector_use(
    entry: Entry[RuleEntry], choice: DetectorChoice, file: DetectorFile, faults: list[Finding]
) -> DetectorUse:
    """Build a detector's use; what is wrong with it is added to `faults`."""
    ladder = choice.ladder or LadderEntry.model_validate({})
    if choice.sequences is Mode.OFF:
        faults += [
            entry.finding(f"`{key}` means nothing without `sequences`", "write `sequences: enforce`", at=("detector",))
            for key in ("ladder", "traffic")
            if getattr(choice, key) is not None
        ]
    elif choice.mode is Mode.OFF:
        hint = "`mode: shadow` judges and lets pass"
        faults.append(entry.finding("`sequences` need a detector that is not off", hint, at=("detector", "mode")))
    if choice.on_suspicion is Suspicion.STEP_UP:
        hint = "write `label`, `delay` or `refuse`; `step_up` is a rung of `ladder`"
        message = "one row is no reason to sign in again"
        faults.append(entry.finding(message, hint, at=("detector", "on_suspicion")))
    rungs = {pattern: getattr(ladder, pattern.value) for pattern in Pattern}
    for pattern, chosen in rungs.items():
        heights = [rung.height for rung in chosen]
        if heights != sorted(set(heights)):
            hint = f"in rising order: {', '.join(Suspicion)}"
            faults.append(entry.finding("the rungs must rise", hint, at=("detector", "ladder", pattern.value)))
    if Suspicion.REFUSE in rungs[Pattern.COLLUDING]:
        hint = "it may be another caller's fault: write `label`, `step_up` or `delay`"
        faults.append(entry.finding("`colluding` cannot refuse", hint, at=("detector", "ladder", "colluding")))
    return DetectorUse(
        file.name,
        file.file,
        file.sha256,
        choice.mode,
        choice.on_suspicion,
        SequenceUse(choice.sequences, choice.traffic is None, ladder.decay, MappingProxyType(rungs))
        if choice.sequences is not Mode.OFF
        else None,
    )
