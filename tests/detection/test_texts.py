"""The detector of texts: what it sees, what it does not, and that the graph computes what was fitted."""

import asyncio
import base64
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from english import ORDINARY, STRANGE, halves
from onnx import helper, numpy_helper

from proxy.adapters.detector import OnnxDetector, load_detector
from proxy.adapters.text_detector import TextDetector
from proxy.detection.facts import BREACH
from proxy.detection.fit import Subject, fit, needed_rows
from proxy.detection.fit_text import fit_texts
from proxy.detection.graph import build, inspect
from proxy.detection.sequence import SequenceWatch
from proxy.detection.text import BUCKETS, MAX_TEXT, WINDOW, TextFacts, grams, sketch, statistic
from proxy.errors import ConfigError, DependencyFault, Malformed
from proxy.exchange import Features, Mode, Pattern, Score, SequenceUse, Sightings, Suspicion, Texts
from proxy.reasons import Reason

SUBJECT = Subject("texts.jsonl", ("llama",))
ALPHA = 0.02  # with 235 texts to calibrate on; .01 wants a thousand
NUMBERS = [str(number) for number in range(300)]


@cache
def facts() -> TextFacts:
    return fit_texts(halves()[0], SUBJECT, ALPHA)


@cache
def detector() -> TextDetector:
    return TextDetector(facts())


def examine(*texts: bytes) -> tuple[Score, Sightings]:
    return asyncio.run(detector().examine(Texts(lambda: texts)))


def flagged(texts: list[str]) -> float:
    return float(np.mean([statistic(facts(), grams(text.encode())) > facts().threshold for text in texts]))


# ── what it sees, docs/defence ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "share"),
    [("gibberish", 0.99), ("base64", 0.99), ("hexadecimal", 0.99), ("rot13", 0.99), ("gibberish suffix", 0.99)],
)
def test_gibberish_and_encodings_are_seen(name, share) -> None:
    """Over splits of a few hundred paragraphs."""
    found = []
    for seed in range(3):
        known, others = halves(seed)
        learned = fit_texts(known, SUBJECT, ALPHA)
        strange = [STRANGE[name](text).encode() for text in others[:200]]
        found.append(np.mean([statistic(learned, grams(text)) > learned.threshold for text in strange]))
    assert np.mean(found) >= share


@pytest.mark.parametrize("name", sorted(ORDINARY))
def test_typos_and_the_order_of_words_are_not_seen(name) -> None:
    """Honest limits: should this ever fail, mend the documents."""
    assert flagged([ORDINARY[name](text) for text in halves()[1][:300]]) <= 0.12


def test_ordinary_texts_are_called_suspicious_at_the_target_rate() -> None:
    texts = halves()[1]
    assert flagged(texts) <= ALPHA + 3 * (ALPHA / len(facts().calibration)) ** 0.5


def test_a_text_much_longer_than_any_breaches_the_gate() -> None:
    ordinary = " ".join(halves()[1]).encode()
    at = int(facts().longest)
    inside, outside = grams(ordinary[: at + 2]), grams(ordinary[: at + 3])
    assert statistic(facts(), outside) - statistic(facts(), inside) == pytest.approx(BREACH, abs=0.1)


def test_upper_case_is_ordinary() -> None:
    text = halves()[1][0].encode()
    assert statistic(facts(), grams(text)) == statistic(facts(), grams(text.upper()))


# ── grams ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [0, 1, 2, 3, WINDOW, WINDOW + 1, WINDOW + 2, WINDOW + 3, 1000])
def test_a_text_of_any_length_has_a_window(length) -> None:
    found = grams(b"a" * length)
    assert len(found) == max(length - 2, WINDOW)
    assert (found < BUCKETS).sum() == max(length - 2, 0)
    assert examine(b"a" * length)[0].rows == 1


def test_the_hash_is_the_one_in_the_metadata() -> None:
    """Fixed for ever: a file that was made elsewhere, or before, means the same."""
    one = (ord("a") * 65536 + ord("b") * 256 + ord("c")) * 2654435761 % 4294967296 >> 17
    assert grams(b"aBc")[0] == one


@pytest.mark.parametrize("text", [bytes(range(256)), b"\xff" * 500, "ä€😀\u202e".encode() * 50, b"\0" * 100, b""])
def test_any_bytes_have_a_finite_statistic(text) -> None:
    assert np.isfinite(examine(text)[0].statistic)


# ── the graph ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_runtime_computes_what_was_fitted() -> None:
    texts = [text.encode() for text in halves()[1][:100]] + [b"", b"x", b"qzxj" * 100, b"a" * 5000]
    for text in texts:
        score, sightings = examine(text)
        assert score.statistic == pytest.approx(statistic(facts(), grams(text)), rel=1e-3, abs=1e-5)
        np.testing.assert_allclose(sightings.sketches, sketch(facts(), grams(text)), rtol=1e-3, atol=1e-5)


def test_what_was_built_is_read_again_and_is_sound_onnx() -> None:
    data = build(facts())
    found = inspect(data, "f")
    assert isinstance(found, TextFacts)
    assert build(found) == data == build(fit_texts(halves()[0], SUBJECT, ALPHA))
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)


def spoiled(**values: np.ndarray) -> bytes:
    model = onnx.load_model_from_string(build(facts()))
    for name, value in values.items():
        entry = next(one for one in model.graph.initializer if one.name == name)
        entry.CopyFrom(numpy_helper.from_array(value, name))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: spoiled(surprise=np.zeros(3, np.float32)), "`surprise` has shape"),
        (lambda: spoiled(surprise=-np.ones(BUCKETS + 1, np.float32)), "negative numbers"),
        (lambda: spoiled(mean_weight=np.array(0, np.float32)), "or zeros"),
        (lambda: spoiled(longest=np.array(np.nan, np.float32)), "not finite"),
        (lambda: spoiled(breach=np.array(0, np.float32)), "not the one that"),
        (lambda: spoiled(line=np.array([1, -1, 1], np.int64)), "not the one that"),
        (lambda: build(replace(facts(), names=("a",))), "a text has none"),
        (lambda: build(facts())[:-1000], "not a detector"),
    ],
    ids=["shape", "negative", "zero", "nan", "limit", "reshape", "names", "truncated"],
)
def test_foreign_files_are_refused(data, message) -> None:
    with pytest.raises(ConfigError, match=message):
        inspect(data(), "f")


def test_a_text_graph_in_a_table_is_refused() -> None:
    model = onnx.load_model_from_string(build(facts()))
    kept = {entry.key: entry.value for entry in model.metadata_props} | {"kind": "tabular"}
    del model.metadata_props[:]
    helper.set_model_props(model, kept)
    with pytest.raises(ConfigError, match="it has no `"):
        inspect(model.SerializeToString(), "f")


# ── judging ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_strangest_text_answers_for_all() -> None:
    ordinary = [text.encode() for text in halves()[1][:50]]
    ordinary = [text for text in ordinary if not examine(text)[0].suspicious][:40]  # more than the loop waits for
    assert not examine(*ordinary)[0].suspicious
    ordinary[7] = base64.b64encode(ordinary[7])
    score, sightings = examine(*ordinary)
    assert (score.suspicious, score.row, score.rows) == (True, 7, 40)
    assert np.flatnonzero(sightings.suspicious).tolist() == [7]


def test_what_is_no_text_or_too_much_of_it_is_malformed() -> None:
    def image() -> list[bytes]:
        raise Malformed(Reason.SCHEMA_MISMATCH, "an image")

    for rows in (
        np.zeros((1, 4), np.float32),
        Texts(list),
        Texts(image),
        Texts(lambda: [b"a" * MAX_TEXT, b"b"]),
    ):
        with pytest.raises(Malformed) as caught:
            asyncio.run(detector().judge(rows))
        assert caught.value.reason is Reason.SCHEMA_MISMATCH


def test_texts_are_malformed_to_a_detector_of_numbers() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3))
    numbers = OnnxDetector(fit(rows, Subject("rows", ("m",)), ALPHA))
    for call in (numbers.judge, numbers.examine):
        with pytest.raises(Malformed, match="texts"):
            asyncio.run(call(Texts(lambda: [b"a"])))


def test_a_runtime_that_fails_fails_closed() -> None:
    class Broken:
        def run(self, *_: object) -> object:
            raise RuntimeError("out of memory")

    broken = TextDetector(facts())
    broken._session = Broken()
    with pytest.raises(DependencyFault):
        asyncio.run(broken.judge(Texts(lambda: [b"a"])))


def test_a_file_loads_as_a_detector_of_texts(tmp_path) -> None:
    import hashlib

    path = tmp_path / "llama.onnx"
    path.write_bytes(build(facts()))
    loaded = load_detector(path, hashlib.sha256(path.read_bytes()).hexdigest(), ["llama"])
    assert isinstance(loaded, TextDetector)


def test_variations_of_a_text_are_near_duplicates_and_different_texts_are_not() -> None:
    use = SequenceUse(Mode.ENFORCE, True, 86_400.0, dict.fromkeys(Pattern, (Suspicion.LABEL,)))
    ordinary = [text.encode() for text in halves()[1]]
    watch = SequenceWatch(facts().tau)
    assert watch.observe("benign", examine(*ordinary[:150])[1], use, 0.0) is None
    base = max(ordinary[200:300], key=len)
    variations = [base[:at] + b"q" + base[at + 1 :] for at in range(0, 60, 10)]
    found = watch.observe("attacker", examine(*variations)[1], use, 0.0)
    assert found is not None
    assert found.pattern is Pattern.NEAR_DUPLICATES


# ── fitting ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rate_that_the_texts_cannot_support_is_refused_with_the_number_needed() -> None:
    texts = halves()[0]
    needed = needed_rows(0.02)
    assert 1 / (len(fit_texts(texts[:needed], SUBJECT, 0.02).calibration) + 1) <= 0.02
    with pytest.raises(ConfigError, match=rf"are too few .*needs {needed} rows"):
        fit_texts(texts[: needed - 1], SUBJECT, 0.02)


@pytest.mark.parametrize(
    ("texts", "subject", "alpha", "message"),
    [
        ([b"the same"] * 300, SUBJECT, ALPHA, "every text is the same"),
        ([b""] * 300, SUBJECT, ALPHA, "every text is the same"),
        (NUMBERS, Subject("f", ()), ALPHA, "for no model"),
        (NUMBERS, Subject("f", ("m",), ("a",)), ALPHA, "a text has none"),
        (NUMBERS, SUBJECT, 0.5, "not a false-alarm rate"),
        ([b"a" * (MAX_TEXT + 1)] * 300, SUBJECT, ALPHA, "text 1 has more than"),
    ],
    ids=["same", "empty", "no model", "names", "alpha", "long"],
)
def test_what_cannot_be_learned_from_is_refused(texts, subject, alpha, message) -> None:
    given = [text if isinstance(text, bytes) else text.encode() for text in texts]
    with pytest.raises(ConfigError, match=message):
        fit_texts(given, subject, alpha)


def test_the_port_has_no_width() -> None:
    rows: Features | Texts = Texts(lambda: [b"a plain question"])
    assert detector().features == 0
    assert asyncio.run(detector().judge(rows)) == asyncio.run(detector().examine(rows))[0]
