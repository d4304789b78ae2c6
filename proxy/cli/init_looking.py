"""Looks at a model server for `hip init`: which family it is of, and which of its models the policy can name."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxy.adapters.survey import Survey, survey
from proxy.cli.init_telling import generic_help
from proxy.dialects import DIALECTS
from proxy.dialects.recognition import QUESTIONS, Answers, Family, about, knows, listed, recognise
from proxy.documents import suggestion
from proxy.exchange import Naming
from proxy.policy.starter import ALONE, names

WRONG_USE, UNDECIDED = 2, 3


class Stop(Exception):
    """Why nothing is written."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Found:
    """What stands behind the address, and what of it goes into the policy."""

    family: Family
    models: Mapping[str, str]  # the policy's name -> the server's
    left: tuple[str, ...]  # names that no policy can have
    others: tuple[str, ...]  # dialects that it speaks, too
    answers: Answers


def look(upstream: str, dialect: str | None, named: Sequence[str], ca_file: str | None) -> Found:
    """Ask the server, and say what is there. Raise Stop where nothing should be written."""
    asked = asyncio.run(_survey(upstream, dialect, named, ca_file))
    answers = asked.answers
    if not answers:
        untrusted = "CERTIFICATE_VERIFY_FAILED" in asked.failure
        hint = "name the CA of its certificate with --ca-file" if untrusted else "start the server first"
        raise Stop(UNDECIDED, f"{upstream}: no answer ({asked.failure}); {hint}")
    families = recognise(answers, named)
    if dialect is not None:
        family = listed(dialect, answers)
    elif families:
        family = families[0]
    else:
        raise Stop(UNDECIDED, _unrecognised(upstream, answers))
    chosen, left = _models(family, named, answers)
    others = tuple(one.dialect for one in families if one.dialect != family.dialect)
    return Found(family, chosen, left, others, answers)


async def _survey(upstream: str, dialect: str | None, named: Sequence[str], ca_file: str | None) -> Survey:
    """Ask what it is, then about each model that it lists."""
    segment = [name for name in named if _in_a_path(name)]
    first = await survey(upstream, (*QUESTIONS, *(one for name in segment for one in about(name))), ca_file)
    families = recognise(first.answers, named)
    family = listed(dialect, first.answers) if dialect is not None else families[0] if families else None
    if family is None or family.dialect != "oip-v2" or named:
        return first
    questions = [about(name)[0] for name in family.models if _in_a_path(name)]
    second = await survey(upstream, questions, ca_file)
    return Survey({**first.answers, **second.answers}, first.failure or second.failure)


def _in_a_path(name: str) -> bool:
    chosen, _ = names("oip-v2", [name])
    return bool(chosen)


def _models(family: Family, named: Sequence[str], answers: Answers) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Return the policy's models. A name that the server does not know, and no name at all, stop."""
    alone = DIALECTS[family.dialect].naming is Naming.NOWHERE
    if alone and len(named) > 1:
        raise Stop(WRONG_USE, f"--model: requests of `{family.dialect}` name no model, so there is one only")
    for name in named:
        if (family.models and name not in family.models) or knows(family.dialect, name, answers) is False:
            there = f"it has {', '.join(family.models)}" if family.models else "it answers nothing about it"
            raise Stop(UNDECIDED, f"--model: the server has no `{name}`{suggestion(name, family.models)}; {there}")
    chosen, left = names(family.dialect, named or family.models)
    if named and left:
        raise Stop(WRONG_USE, f"--model: no policy can have the name `{left[0]}`: letters, digits, `.`, `_` and `-`")
    if chosen:
        return chosen, tuple(left)
    if not left and not family.waiting and DIALECTS[family.dialect].naming is not Naming.PATH:
        return {ALONE: ALONE}, ()  # requests name none, or the server takes any name
    raise Stop(UNDECIDED, _no_models(family, left))


def _no_models(family: Family, left: Iterable[str]) -> str:
    speaks = f"it speaks `{family.dialect}`"
    if family.waiting:
        return f"{speaks}, but none of its models is ready: {', '.join(family.waiting)}; load one first"
    if left := [*left]:
        return f"{speaks}, but no policy can name its models: {', '.join(left)}"
    return f"{speaks}, but lists no models: name them with --model NAME"


def _unrecognised(upstream: str, answers: Answers) -> str:
    if all(seen.status in {401, 403} for seen in answers.values()):
        return f"{upstream}: answers every question with 401 or 403: hip sends no credentials to model servers"
    said = ", ".join(f"{question.method} {question.path} {seen.status}" for question, seen in answers.items())
    known = ", ".join(sorted(DIALECTS.keys() - {"generic"}))
    return (
        f"{upstream}: answers like none of {known}.\n"
        f"It said: {said}.\n"
        "If you know better, say --dialect NAME. Else: " + generic_help(upstream)
    )
