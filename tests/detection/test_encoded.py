"""PNG and JPEG: what is read of a file before a pixel is decoded, what is decoded, and what is refused."""

import asyncio
import subprocess
import sys
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SIDE as SHOWN
from pictures import bomb, chunk, digits, header, saved, with_chunk, with_segment
from PIL import Image

from proxy.adapters import image_detector
from proxy.adapters.image_decoder import headers, rows
from proxy.adapters.image_detector import ImageDetector
from proxy.detection.encoded import (
    JPEG,
    MAX_IMAGES,
    MAX_PARTS,
    MAX_PIXELS,
    MAX_SCANS,
    PICTURE,
    PNG,
    encoded,
    numbers,
)
from proxy.detection.fit import Subject, fit
from proxy.detection.graph import build, inspect
from proxy.detection.picture import SIDE
from proxy.errors import Malformed
from proxy.exchange import Images, Texts

GENERATOR = np.random.default_rng(0)
ONE = next(digits("training"))
COLOURED = np.stack([ONE, ONE[::-1], ONE.T], axis=2)
PHOTO = saved(COLOURED, "JPEG", quality=90)
PLAIN = saved(ONE)


def row(data: bytes) -> np.ndarray:
    return rows(headers([data]))[0]


def detail(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        row(data)
    return caught.value.detail


# ── what is judged ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cell_is_the_mean_of_its_pixels_and_of_the_differences_between_neighbours() -> None:
    grey = GENERATOR.integers(0, 256, (64, 48), dtype=np.uint8)
    found = numbers(grey).reshape(PICTURE.height, PICTURE.width)
    wide = grey.astype(float)
    rough = np.zeros_like(wide)
    rough[:, 1:] += np.abs(wide[:, 1:] - wide[:, :-1])
    rough[1:] += np.abs(wide[1:] - wide[:-1])
    for values, part in ((wide, found[:SIDE]), (rough, found[SIDE:])):
        np.testing.assert_allclose(part, values.reshape(SIDE, 4, SIDE, 3).mean(axis=(1, 3)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("sides", [(1, 1), (8, 8), (17, 31), (1, 600), (1030, 3)], ids=str)
def test_an_image_of_any_size_has_as_many_numbers(sides) -> None:
    found = row(saved(np.full(sides, 77, np.uint8)))
    assert found.shape == (PICTURE.numbers,)
    assert set(found[: SIDE * SIDE].tolist()) == {77.0}
    assert not found[SIDE * SIDE :].any()


def interlaced(pixels: np.ndarray) -> bytes:
    """Adam7, which Pillow reads and does not write."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    lines = b"".join(
        b"\0" + bytes(line) for x, y, wide, high in passes for line in pixels[y::high, x::wide] if line.size
    )
    head = (pixels.shape[1]).to_bytes(4) + (pixels.shape[0]).to_bytes(4) + bytes((8, 0, 0, 0, 1))
    return PNG + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


GREY = (np.add.outer(np.arange(40), np.arange(40)) * 3).astype(np.uint8)
INTERLACED = interlaced(GREY)


@pytest.mark.parametrize(
    "data",
    [
        INTERLACED,
        saved(GREY, mode="RGB"),
        saved(GREY, mode="RGBA"),
        saved(GREY, mode="LA"),
        saved(GREY, mode="P"),
        saved(GREY.astype(np.uint16) * 257),
        saved(GREY, "JPEG", quality=95),
        saved(GREY, "JPEG", quality=95, progressive=True),
        saved(GREY, "JPEG", "RGB", quality=95, subsampling=0),
        saved(GREY, "JPEG", "CMYK", quality=95),
    ],
    ids=["interlaced", "rgb", "rgba", "grey-and-alpha", "palette", "16-bit", "jpeg", "progressive", "jpeg-rgb", "cmyk"],
)
def test_every_way_to_write_an_image_is_the_same_image(data) -> None:
    np.testing.assert_allclose(row(data)[: SIDE * SIDE], row(saved(GREY))[: SIDE * SIDE], atol=4)


def test_a_large_photo_is_the_same_photo() -> None:
    large = np.kron(GREY, np.ones((80, 80), np.uint8))  # 3200 x 3200
    for form in ("PNG", "JPEG"):
        np.testing.assert_allclose(row(saved(large, form))[: SIDE * SIDE], row(saved(GREY))[: SIDE * SIDE], atol=4)


@pytest.mark.parametrize("sides", [(1, 1), (3, 5), (17, 9), (33, 2)], ids=str)
def test_what_an_encoder_writes_of_any_size_is_read(sides) -> None:
    """No depth, interlacing, sampling or number of scans that others write is taken for a damaged one."""
    pixels = GENERATOR.integers(0, 256, (*sides, 3), dtype=np.uint8)
    files = [saved(pixels, mode=mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    files += [saved(Image.fromarray(pixels).quantize(colours)) for colours in (2, 4, 16)]
    files += [interlaced(pixels[..., 0]), saved(pixels[..., 0].astype(np.uint16) * 257)]
    ways: list[dict[str, object]] = [{"progressive": True}, {"optimize": True}, {"subsampling": 0}]
    ways += [{"restart_marker_blocks": 1}, {"exif": b"Exif\0\0x", "icc_profile": bytes(100_000), "comment": b"z"}]
    files += [saved(pixels, "JPEG", mode, **way) for way in ways for mode in ("L", "RGB", "CMYK")]
    assert rows(headers(files)).shape == (len(files), PICTURE.numbers)


# ── what is dropped ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [
        with_chunk(PLAIN, b"eXIf", b"MM\0*" + b"\xff" * 400),
        with_chunk(PLAIN, b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 24), 9)),
        with_chunk(PLAIN, b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 24), 9)),
        with_chunk(PLAIN, b"tEXt", b"junk" * 10),
        PLAIN + b"whatever stands behind the end",
    ],
    ids=["exif", "profile", "text-bomb", "text", "behind"],
)
def test_nothing_but_what_makes_pixels_reaches_the_decoder(data) -> None:
    assert encoded(data).data == encoded(PLAIN).data == PLAIN


@pytest.mark.parametrize(
    "data",
    [
        with_segment(PHOTO, 0xE1, b"Exif\0\0MM\0*" + b"\xff" * 400),
        with_segment(PHOTO, 0xE2, b"ICC_PROFILE\0\1\1" + b"\xff" * 4000),
        with_segment(PHOTO, 0xE2, b"MPF\0" + b"\xff" * 40),
        with_segment(PHOTO, 0xFE, b"a comment"),
        PHOTO + PHOTO,
    ],
    ids=["exif", "profile", "several-pictures", "comment", "behind"],
)
def test_nothing_but_what_makes_pixels_reaches_the_other_decoder(data) -> None:
    assert encoded(data).data == encoded(PHOTO).data == PHOTO


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────

ANIMATED = saved(
    Image.fromarray(ONE), save_all=True, append_images=[Image.fromarray(255 - ONE)], duration=100, default_image=False
)
START = PHOTO.index(b"\xff\xda")
FRAME = PHOTO.index(b"\xff\xc0")
SIZE = int.from_bytes(PHOTO[FRAME + 2 : FRAME + 4])
INDEXED = saved(GREY, mode="P")
PALETTE = INDEXED.index(b"PLTE") - 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PNG + header(50_000, 50_000) + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "50000 x 50000 pixels"),
        (bomb(20_000, 20_000), "20000 x 20000 pixels"),
        (PHOTO[: FRAME + 5] + b"\xff\xff\xff\xff" + PHOTO[FRAME + 9 :], "65535 x 65535 pixels"),
        (PNG + header(0, 5) + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "0 x 5 pixels"),
        (PHOTO[: FRAME + 5] + b"\0\0\0\5" + PHOTO[FRAME + 9 :], "5 x 0 pixels"),
        (bomb(64, 64, rows=3), "fewer pixels"),
        (bomb(64, 64, rows=65), "more or"),
        (
            PNG + header(64, 64) + chunk(b"IDAT", zlib.compress(bytes(65 * 64))[:-6]) + chunk(b"IEND", b""),
            "fewer pixels",
        ),
        (PLAIN[:-20], "ends early"),
        (PLAIN[:30], "ends early"),
        (PNG, "ends early"),
        (PHOTO[:-200], "ends early"),
        (PHOTO[: START - 5], "ends early"),
        (JPEG, "ends early"),
        (saved(ONE, "GIF"), "neither PNG nor JPEG"),
        (saved(ONE, "BMP"), "neither PNG nor JPEG"),
        (saved(ONE, "TIFF"), "neither PNG nor JPEG"),
        (saved(ONE, "WEBP"), "neither PNG nor JPEG"),
        (b"", "neither PNG nor JPEG"),
        (ANIMATED, "several frames"),
        (with_chunk(PLAIN, b"ABCD", b""), "nobody knows"),
        (with_chunk(PLAIN, b"IHDR", PLAIN[16:29]), "stands twice"),
        (PLAIN[:-12] + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", b"") + PLAIN[-12:], "stands twice"),
        (PLAIN[:20] + b"\1" + PLAIN[21:], "wrong checksum"),
        (PLAIN[:-16] + bytes([PLAIN[-16] ^ 1]) + PLAIN[-15:], "wrong checksum"),
        (PNG + header(4, 4) + chunk(b"IEND", b""), "without its header or its pixels"),
        (PNG + header(4, 4, colour=5) + chunk(b"IDAT", b"xxxx") + chunk(b"IEND", b""), "not compressed"),
        (PNG + header(4, 4, 3) + chunk(b"IDAT", zlib.compress(bytes(12))) + chunk(b"IEND", b""), "cannot be decoded"),
        (INDEXED[:PALETTE] + INDEXED[INDEXED.index(b"IDAT") - 4 :], "without its palette"),
        (INDEXED[:PALETTE] + chunk(b"PLTE", bytes(768)) + INDEXED[PALETTE:], "stands twice"),
        (PLAIN[:-12] + chunk(b"PLTE", bytes(768)) + PLAIN[-12:], "after its pixels"),
        (PNG + header(4, 4) + chunk(b"IDAT", b"nonsense") + chunk(b"IEND", b""), "not compressed"),
        (PHOTO[:FRAME] + PHOTO[FRAME : FRAME + 2 + SIZE] * 2 + PHOTO[FRAME + 2 + SIZE :], "several frames"),
        (PHOTO[: FRAME + 1] + b"\xc9" + PHOTO[FRAME + 2 :], "marker 0xc9"),
        (PHOTO[: FRAME + 4] + b"\x0c" + PHOTO[FRAME + 5 :], "8 bits"),
        (PHOTO[: FRAME + 9] + b"\2" + PHOTO[FRAME + 10 :], "8 bits"),
        (PHOTO[:FRAME] + PHOTO[FRAME + 2 + SIZE :], "without a frame"),
        (PHOTO[:FRAME] + b"\xff\xc0\0\2" + PHOTO[FRAME + 2 + SIZE :], "without a frame"),
        (PHOTO[:FRAME] + b"\xff\xc0\0\7\x08\0\1\0\1" + PHOTO[FRAME + 2 + SIZE :], "without a frame"),
        (PHOTO[:START] + PHOTO[START:-2] * (MAX_SCANS + 1) + PHOTO[-2:], "scans"),
        (PHOTO[:START] + b"\xff\xda\0\2\xff\xd9", "cannot be decoded"),
        (PHOTO[:2] + b"\xff\xfe\0\2" * (MAX_PARTS + 1) + PHOTO[2:], "segments"),
        (PHOTO[:2] + b"\xff" * 1000 + PHOTO[2:], "is none"),
        (PLAIN[:33] + chunk(b"tEXt", b"") * (MAX_PARTS + 1) + PLAIN[33:], "chunks"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_is_not_one_image_is_refused_with_its_reason(data, words) -> None:
    assert words in detail(data)


def test_a_header_is_believed_before_any_memory_is_taken() -> None:
    tracemalloc.start()
    try:
        assert "pixels" in detail(bomb(20_000, 20_000, rows=1))
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_many_images_may_not_have_more_pixels_than_one() -> None:
    part = bomb(4096, 4096 // 4)
    assert sum(one.pixels for one in headers([part] * 4)) == MAX_PIXELS
    with pytest.raises(Malformed, match="20,971,520 pixels"):
        headers([part] * 5)
    for files in ([], [PLAIN] * (MAX_IMAGES + 1)):
        with pytest.raises(Malformed, match="at most 1024"):
            headers(files)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([PLAIN, PHOTO, saved(GREY, mode="P"), saved(GREY, "JPEG", progressive=True)]),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8),
    st.integers(0, 5000),
)
def test_any_damage_is_an_image_or_malformed(data, changes, end) -> None:
    """Invariant: any bytes are a row of finite numbers, or refused as the caller's fault."""
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    try:
        found = row(bytes(damaged[: max(end, 1)] if end < len(damaged) else damaged))
    except Malformed:
        return
    assert found.shape == (PICTURE.numbers,)
    assert np.isfinite(found).all()


# ── the detector ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def detector() -> ImageDetector:
    learned = np.array([row(saved(one)) for one in digits("training")])
    facts = fit(learned, Subject("digits", ("m",)), 0.02, picture=PICTURE)
    kept = inspect(build(facts), "f")
    assert kept.picture == PICTURE  # type: ignore[union-attr]
    return ImageDetector(kept)  # type: ignore[arg-type]


def images(*files: bytes, size: int | None = None) -> Images:
    return Images(lambda: files, sum(map(len, files)) if size is None else size)


async def test_ordinary_images_pass_and_noise_does_not(detector) -> None:
    held = list(digits("heldout"))[:200]
    flagged = [(await detector.judge(images(saved(one)))).suspicious for one in held]
    assert sum(flagged) <= 12
    signs = np.random.default_rng(1).choice([-12.75, 12.75], (200, SHOWN, SHOWN))
    noisy = [np.clip(one + sign, 0, 255).round().astype(np.uint8) for one, sign in zip(held, signs, strict=True)]
    seen = [(await detector.judge(images(saved(one)))).suspicious for one in noisy]
    assert sum(seen) >= 190  # of a twentieth of the range in every pixel, which the mean of a cell hides


async def test_the_strangest_image_answers_and_repeats_are_the_same_file(detector) -> None:
    strange = saved(GENERATOR.integers(0, 256, (SHOWN, SHOWN), dtype=np.uint8))
    score, sightings = await detector.examine(images(PLAIN, strange, PLAIN, with_chunk(PLAIN, b"tEXt", b"a\0b")))
    assert (score.row, score.rows, score.suspicious) == (1, 4, True)
    first, _, third, fourth = sightings.identities.tolist()
    assert first == third != fourth  # the same pixels in another file are near, and no retry
    assert np.linalg.norm(sightings.sketches[0] - sightings.sketches[3]) == 0
    assert sightings.suspicious.tolist() == [False, True, False, False]


async def test_inline_and_in_the_thread_are_the_same_judgement(detector, monkeypatch) -> None:
    here = await detector.judge(images(PLAIN, PLAIN))
    for limit in ("INLINE_BYTES", "INLINE_PIXELS"):
        monkeypatch.setattr(image_detector, limit, 0)
        assert await detector.judge(images(PLAIN, PLAIN)) == here
    with pytest.raises(Malformed, match="ends early"):
        await detector.judge(images(PLAIN[:40]))


async def test_many_small_images_are_decoded_in_the_thread(detector) -> None:
    where: list[str] = []

    def read() -> list[bytes]:
        where.append(threading.current_thread().name)
        return [saved(GREY[:1, :1])] * 200

    await detector.judge(Images(read, image_detector.INLINE_BYTES))
    assert where[-1].startswith("hip-images")


def test_no_pixel_is_unpacked_while_headers_are_read() -> None:
    """A few bytes can hold a million pixels, and the event loop reads the headers."""
    damaged = PNG + header(1200, 1200) + chunk(b"IDAT", b"nonsense") + chunk(b"IEND", b"")
    found = headers([damaged])
    with pytest.raises(Malformed, match="not compressed"):
        rows(found)


async def test_the_loop_goes_on_while_a_large_image_is_decoded(detector) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await detector.judge(images(bomb(4096, 4096)))
    counting.cancel()
    assert turns > 10


async def test_other_kinds_of_input_are_refused(detector) -> None:
    for given_input in (np.zeros((1, PICTURE.numbers), np.float32), Texts(lambda: [PLAIN])):
        with pytest.raises(Malformed, match="no encoded images"):
            await detector.judge(given_input)


def test_no_decoder_is_there_where_no_rule_needs_one() -> None:
    program = "import sys, proxy.cli, proxy.app, proxy.adapters.detector; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
