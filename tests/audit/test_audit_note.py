"""Signed notes against the published vector of the Go implementation, checkpoints, and segment certificates."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy.audit.certificate import Certificate
from proxy.audit.checkpoint import Checkpoint, origin
from proxy.audit.note import NoteError, Signer, Verifier

KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PRIVATE = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
NOTE = f"{TEXT}\n\u2014 PeterNeumann {SIGNATURE}\n"

SIGNER = Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(base64.b64decode(PRIVATE)[1:]))


def test_the_published_note_opens() -> None:
    assert Verifier.parse(KEY).open(NOTE) == TEXT


def test_we_sign_the_published_note_byte_for_byte() -> None:
    assert SIGNER.note(TEXT) == NOTE
    assert str(SIGNER.verifier) == KEY


@pytest.mark.parametrize(
    "note",
    [
        "",
        TEXT,
        NOTE.replace("cryptography", "cryptographY"),
        NOTE.replace("PeterNeumann", "EnochRoot"),
        NOTE + "\u2014 PeterNeumann " + SIGNATURE + "\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("JnAM=", "JnAN="),
        NOTE.replace("x08g", "y08g"),
        f"{TEXT}\n\u2014 PeterNeumann \n",
        f"\n\u2014 PeterNeumann {SIGNATURE}\n",
    ],
    ids=[
        "empty",
        "unsigned",
        "text",
        "name",
        "doubled",
        "no-newline",
        "newline",
        "spare-bits",
        "id",
        "blank",
        "no-text",
    ],
)
def test_any_other_note_is_refused(note: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(KEY).open(note)


@pytest.mark.parametrize(
    "key",
    ["", "a+b", KEY.replace("c74f", "c74e"), KEY.replace("+ARpc", "+AhpC"), KEY[:-4], "a b" + KEY[12:], KEY + "AA"],
)
def test_a_malformed_verifier_key_is_refused(key: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(key)


def test_a_text_without_an_end_is_not_signed() -> None:
    with pytest.raises(NoteError):
        SIGNER.note("no newline")


HEAD = Checkpoint("hip-audit/s", 3, bytes(range(32)), 1_790_000_000_000_000_000, 5)


def test_a_checkpoint_has_the_lines_of_the_specification() -> None:
    lines = HEAD.text().split("\n")
    assert lines[:3] == ["hip-audit/s", "3", base64.b64encode(bytes(range(32))).decode()]
    assert Checkpoint.parse(HEAD.text()) == HEAD


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n3\n",
        HEAD.text().replace("\n3\n", "\n03\n"),
        HEAD.text().replace("\n3\n", "\n-3\n"),
        HEAD.text().replace("\n3\n", "\n\u0663\n"),
        HEAD.text().replace("\n3\n", "\n\n"),
        HEAD.text().replace("time ", "time  "),
        HEAD.text().replace("time", "when"),
        HEAD.text() + "more\n",
        HEAD.text().replace("Hh8=", "Hh9="),
        HEAD.text().removeprefix("hip-audit/s"),
    ],
)
def test_any_other_spelling_of_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        Checkpoint.parse(text)


def _certificate(stream: str = "s") -> Certificate:
    return Certificate(stream, 2, 100, 200, Signer(origin("s"), Ed25519PrivateKey.generate()).verifier)


def test_a_certificate_opens_with_the_long_term_key_only() -> None:
    certificate = _certificate()
    note = certificate.issue(SIGNER)
    assert Certificate.open(note, SIGNER.verifier) == certificate
    other = Signer("PeterNeumann", Ed25519PrivateKey.generate()).verifier
    with pytest.raises(NoteError):
        Certificate.open(note, other)


def test_a_note_of_another_kind_is_no_certificate() -> None:
    with pytest.raises(NoteError):
        Certificate.open(SIGNER.note(HEAD.text()), SIGNER.verifier)


def test_a_certificate_names_its_own_streams_key() -> None:
    with pytest.raises(NoteError):
        Certificate.open(_certificate("another").issue(SIGNER), SIGNER.verifier)


def test_a_certificate_covers_its_window_and_no_second_more() -> None:
    certificate = _certificate()
    assert [certificate.covers(second * 10**9) for second in (99, 100, 200, 201)] == [False, True, True, False]
