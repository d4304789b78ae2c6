"""`hip detector fit`, `show` and `check` of images and texts, as a user runs them."""

import json
from pathlib import Path

import numpy as np
import pytest
from english import halves
from pictures import digits, saved
from typer.testing import CliRunner

from proxy.cli.detector import detector_app
from proxy.demo.digits import load_digits

run = CliRunner().invoke
DIGITS = load_digits().training.reshape(-1, 8, 8)
TEXTS = [text.decode() for text in halves()[0]]


def fit(source: Path, *more: str) -> tuple[int, str, dict[str, object]]:
    output = source.parent / "out.onnx"
    done = run(detector_app, ["fit", str(source), "-o", str(output), "--model", "m", "--alpha", ".02", "--json", *more])
    return done.exit_code, done.stderr.strip(), json.loads(done.stdout) if done.exit_code == 0 else {}


# ── images ──────────────────────────────────────────────────────────────────────────────────────────────────────


def requests(images: np.ndarray) -> str:
    shape = [len(images), *images.shape[1:]]
    tensor = {"name": "x", "datatype": "UINT8", "shape": shape, "data": images.ravel().tolist()}
    return json.dumps({"inputs": [tensor]})


def test_every_form_of_the_same_images_makes_the_same_detector(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", DIGITS)
    np.save(tmp_path / "flat.npy", DIGITS.reshape(len(DIGITS), -1))
    np.savetxt(tmp_path / "rows.csv", DIGITS.reshape(len(DIGITS), -1), delimiter=",", fmt="%d")
    (tmp_path / "requests.jsonl").write_text("\n".join(requests(part) for part in np.array_split(DIGITS, 20)))
    (tmp_path / "each").mkdir()
    for number, image in enumerate(DIGITS):
        np.save(tmp_path / "each" / f"{number:04}.npy", image)
    found = [
        fit(tmp_path / source, "--kind", "image", *more)
        for source, more in (
            ("images.npy", ()),
            ("flat.npy", ("--shape", "8x8")),
            ("rows.csv", ("--shape", "8x8")),
            ("requests.jsonl", ()),
            ("each", ()),
        )
    ]
    assert [(code, said) for code, said, _ in found] == [(0, "")] * 5
    assert len({str(facts["sha256"]) for _, _, facts in found}) == 1
    assert found[0][2]["image"] == {"layout": "nhw", "channels": 1, "height": 8, "width": 8}


def test_files_of_images_make_a_detector_of_files(tmp_path: Path) -> None:
    """PNG and JPEG together, as a camera and a scanner would give them; what is no image is told by its name."""
    directory = tmp_path / "photos"
    directory.mkdir()
    for number, image in enumerate(digits("training")):
        form, ending = (("PNG", "png"), ("JPEG", "JPG"))[number % 2]
        (directory / f"{number:04}.{ending}").write_bytes(saved(image, form))
    code, said, facts = fit(directory, "--kind", "image")
    assert (code, said) == (0, "")
    assert facts["image"] == {"layout": "encoded", "channels": 1, "height": 32, "width": 16}
    assert facts["rows"] == len(DIGITS)
    assert fit(directory, "--kind", "image")[2]["sha256"] == facts["sha256"]
    shown = run(detector_app, ["show", str(tmp_path / "out.onnx")])
    assert "PNG or JPEG of any size" in " ".join(shown.stdout.replace("│", " ").split())

    assert "mean nothing to PNG and JPEG" in fit(directory, "--kind", "image", "--shape", "28x28")[1]
    (directory / "broken.png").write_bytes(saved(next(digits("training")))[:100])
    code, said, _ = fit(directory, "--kind", "image")
    assert code == 2
    assert "broken.png: a PNG that ends early" in said


@pytest.mark.parametrize(
    ("shape", "more", "layout"),
    [
        ((1, 8, 8), (), "nchw"),
        ((8, 8, 1), (), "nhwc"),
        ((1, 8, 8), ("--layout", "nhwc", "--shape", "8x8x1"), "nhwc"),
        ((4, 16, 1), ("--layout", "nchw"), "nchw"),
    ],
)
def test_the_layout_is_seen_or_said(tmp_path: Path, shape, more, layout) -> None:
    np.save(tmp_path / "images.npy", DIGITS.reshape(-1, *shape))
    code, said, facts = fit(tmp_path / "images.npy", "--kind", "image", *more)
    assert (code, said) == (0, "")
    assert facts["image"]["layout"] == layout  # type: ignore[index]
    assert facts["kind"] == "image"


@pytest.mark.parametrize(
    ("shape", "more", "message"),
    [
        ((64,), (), "nothing says how a row is an image"),
        ((4, 16, 1), (), "which side of 4x16x1 are the channels"),
        ((2, 4, 8), (), "which side of 2x4x8 are the channels"),
        ((8, 8), ("--shape", "8x9"), "64 numbers in a row, and 72 in an image"),
        ((8, 8), ("--shape", "8by8"), "is not the shape of an image"),
        ((8, 8), ("--layout", "nchw"), "2 sides are no image in this layout"),
        ((8, 8), ("--names", "a,b"), "2 names for 64 features"),
    ],
)
def test_images_that_nobody_can_read_are_refused(tmp_path: Path, shape, more, message) -> None:
    np.save(tmp_path / "images.npy", DIGITS.reshape(-1, *shape))
    code, said, _ = fit(tmp_path / "images.npy", "--kind", "image", *more)
    assert code == 2
    assert message in said


def test_directories_that_hold_no_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "0 files *.npy" in fit(tmp_path / "none", "--kind", "image")[1]
    np.save(tmp_path / "none" / "a.npy", DIGITS[0])
    np.save(tmp_path / "none" / "b.npy", DIGITS[0][:7])
    code, said, _ = fit(tmp_path / "none", "--kind", "image")
    assert code == 2
    assert "b.npy: an image of (7, 8), and the first one is of (8, 8)" in said


def test_words_for_images_mean_nothing_to_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", DIGITS)
    code, said, _ = fit(tmp_path / "images.npy", "--shape", "8x8")
    assert code == 2
    assert "mean nothing to the kind tabular" in said


def test_show_says_how_images_are_seen(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.kron(DIGITS, np.ones((5, 5), np.uint8)))
    assert fit(tmp_path / "images.npy", "--kind", "image")[0] == 0
    shown = run(detector_app, ["show", str(tmp_path / "out.onnx")])
    assert shown.exit_code == 0
    assert "20 x 20 cells of 2 x 2 pixels" in " ".join(shown.stdout.replace("│", " ").split())


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_form_of_the_same_texts_makes_the_same_detector(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, TEXTS)))
    (tmp_path / "each").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "each" / f"{number:05}.txt").write_text(text)
    bodies = [
        {"model": "m", "messages": [{"role": "system", "content": TEXTS[0]}, {"role": "user", "content": TEXTS[1]}]},
        {"model": "m", "prompt": TEXTS[2]},
        {"model": "m", "input": TEXTS[3:5], "temperature": 1},
        {"inputs": [{"name": "x", "shape": [len(TEXTS) - 5], "datatype": "BYTES", "data": TEXTS[5:]}]},
    ]
    (tmp_path / "requests.ndjson").write_text("\n".join(map(json.dumps, bodies)))
    sources = ("texts.txt", "texts.jsonl", "each", "requests.ndjson")
    found = [fit(tmp_path / source, "--kind", "text") for source in sources]
    assert [(code, said) for code, said, _ in found] == [(0, "")] * 4
    assert len({str(facts["sha256"]) for _, _, facts in found}) == 1
    assert (found[0][2]["kind"], found[0][2]["rows"]) == ("text", len(TEXTS))


@pytest.mark.parametrize(
    "line",
    [
        "[1, 2]",
        "1",
        "{}",
        "nonsense",
        '{"messages": []}',
        '{"messages": [{"role": "user"',
        '{"messages": [{"role": "nobody", "content": "a"}]}',
        '{"prompt": [1, 2]}',
        '{"inputs": []}',
        '{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}',
        '{"inputs": [{"name": "x", "shape": [2], "datatype": "BYTES", "data": ["a"]}]}',
        '{"inputs": [{"name": "x", "shape": [0], "datatype": "BYTES", "data": []}]}',
        '{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [1]}]}',
        "[" * 5000,
    ],
)
def test_lines_that_hold_no_texts_are_told_with_their_number(tmp_path: Path, line) -> None:
    (tmp_path / "texts.jsonl").write_text("\n".join([*map(json.dumps, TEXTS), line]))
    code, said, _ = fit(tmp_path / "texts.jsonl", "--kind", "text")
    assert code == 2
    assert f"texts.jsonl:{len(TEXTS) + 1}:1: neither a text nor a request with texts only" in said


def test_too_few_texts_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    code, said, _ = fit(tmp_path / "texts.txt", "--kind", "text")
    assert code == 2
    assert "2 rows are too few" in said
    assert "needs 122 rows" in said


@pytest.mark.parametrize("name", ["texts.csv", "absent.txt", "absent"])
def test_files_that_hold_no_texts_are_refused(tmp_path: Path, name) -> None:
    (tmp_path / "texts.csv").write_text("a,b\n")
    code, said, _ = fit(tmp_path / name, "--kind", "text")
    assert code == 2
    assert "unknown kind of file" in said or "cannot be read" in said


def test_show_says_what_was_learned_of_texts(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    assert fit(tmp_path / "texts.txt", "--kind", "text")[0] == 0
    shown = run(detector_app, ["show", str(tmp_path / "out.onnx")])
    assert shown.exit_code == 0
    for words in (f"{len(TEXTS)} texts", "trigrams", "calibration scores", "suspicious above"):
        assert words in " ".join(shown.stdout.replace("│", " ").split())


# ── check ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_without_what_it_needs_ends_with_two_or_three(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", DIGITS.reshape(len(DIGITS), -1))
    assert fit(tmp_path / "rows.npy")[0] == 0
    file, empty = str(tmp_path / "out.onnx"), tmp_path / "audit"
    empty.mkdir()
    for arguments, code, message in (
        ([str(tmp_path / "rows.npy"), "--journal", str(empty)], 2, "not a detector"),
        ([file, "--journal", str(tmp_path / "absent")], 2, "not a directory"),
        ([file, "--journal", str(empty), "--since", "a while"], 2, "is not a time"),
        ([file, "--journal", str(empty)], 3, "no scores of this detector in the last 7d"),
    ):
        done = run(detector_app, ["check", *arguments])
        assert done.exit_code == code, done.output
        assert message in done.stderr
