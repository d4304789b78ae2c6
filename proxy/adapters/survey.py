"""Asks a running model server what it is: for `hip init`, never for the data path.

One question after the other, each with a deadline of its own and all of them with one, no redirect followed, no proxy
of the environment, no cookie, and no more than `MAX_ANSWER` read of any answer. What the answers mean is decided in
`proxy.dialects.recognition`.

Not guaranteed: that a question leaves no trace. A server that writes a log, logs it.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from proxy.dialects.recognition import Question, Seen
from proxy.errors import ConfigError, Finding

ANSWER_SECONDS = 3.0  # for one question
TOTAL_SECONDS = 30.0  # for all of them
MAX_ANSWER = 1 << 20  # bytes

_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "hip-init"}


@dataclass(frozen=True, slots=True)
class Survey:
    """The answers that came, and why the first one did not that failed; empty: all came."""

    answers: Mapping[Question, Seen]
    failure: str = ""


async def survey(
    url: str,
    questions: Iterable[Question],
    ca_file: str | None = None,
    *,
    each: float = ANSWER_SECONDS,
    total: float = TOTAL_SECONDS,
) -> Survey:
    """Put the questions to a server. Raise ConfigError for a CA file that cannot be read."""
    answers: dict[Question, Seen] = {}
    failure = ""
    limits, none = httpx.Timeout(each), CookieJar(DefaultCookiePolicy(allowed_domains=()))
    async with httpx.AsyncClient(
        verify=_trust(ca_file), trust_env=False, timeout=limits, headers=_HEADERS, cookies=none
    ) as http:
        try:
            async with asyncio.timeout(total):
                for question in questions:
                    try:
                        async with asyncio.timeout(each):
                            answers[question] = await _asked(http, url, question)
                    except (httpx.TransportError, TimeoutError) as exc:
                        failure = failure or _why(exc)
                        if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
                            break  # nobody there: the next question would find nobody either
        except TimeoutError:
            failure = failure or f"not everything was answered within {total:g} s"
    return Survey(answers, failure)


async def _asked(http: httpx.AsyncClient, url: str, question: Question) -> Seen:
    headers = {"content-type": "application/json"} if question.body else {}
    target = url.rstrip("/") + question.path
    async with http.stream(question.method, target, content=question.body or None, headers=headers) as answer:
        body = b""
        async for piece in answer.aiter_raw():
            body += piece
            if len(body) > MAX_ANSWER:
                return Seen(answer.status_code, b"")  # no answer that we ask for is so long
        return Seen(answer.status_code, body)


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError([Finding(str(ca_file), 0, 0, "no CA can be read here", "name a PEM file")]) from exc


def _why(exc: Exception) -> str:
    """Return what helps: the type where the text says nothing."""
    words = str(exc).strip()
    return f"{type(exc).__name__}{f': {words}' if words else ''}"[:200]
