"""What one input costs in a detector of each kind: the checks, the graph, the sketch and the identity, one thread.

    python benchmarks/detector_kinds.py

prints medians in microseconds. Nothing here decides anything; the targets stand in docs/defence.md.
"""

import asyncio
import io
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from proxy.adapters.detector import OnnxDetector
from proxy.adapters.image_decoder import headers, rows
from proxy.adapters.image_detector import ImageDetector
from proxy.adapters.text_detector import TextDetector
from proxy.detection.encoded import PICTURE
from proxy.detection.fit import Subject, fit
from proxy.detection.fit_text import fit_texts
from proxy.detection.picture import Layout, picture
from proxy.exchange import Images, Texts

SUBJECT = Subject("benchmark", ("m",))
RUNS, WARM = 2_000, 50


async def median(ask: Callable[[], Awaitable[object]], runs: int = RUNS) -> float:
    """Return microseconds."""
    found = []
    for run in range(WARM + runs):
        begun = time.perf_counter()
        await ask()
        if run >= WARM:
            found.append(time.perf_counter() - begun)
    return statistics.median(found) * 1e6


def saved(pixels: np.ndarray, form: str) -> bytes:
    """Return an encoded image."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def decoded(files: list[bytes]) -> np.ndarray:
    """Return what is judged of encoded images."""
    return np.array([rows(headers([file]))[0] for file in files])


async def main() -> None:
    """Print one line for each kind and size."""
    generator = np.random.default_rng(0)
    for features in (64, 784, 10_000):
        table = generator.normal(size=(400, 40)) @ generator.normal(size=(40, features))
        detector, row = OnnxDetector(fit(table, SUBJECT, 0.02)), table[:1].astype(np.float32)
        print(f"tabular, {features:,} numbers: {await median(lambda d=detector, r=row: d.examine(r)):.0f} µs")
    for sides in ((1, 28, 28), (3, 32, 32), (3, 57, 57), (3, 224, 224)):
        of = picture(Layout.NCHW, sides)
        assert of is not None
        coarse = generator.uniform(0, 255, (300, of.channels, 8, 8))
        whole = coarse[:, :, np.arange(of.height) * 8 // of.height][..., np.arange(of.width) * 8 // of.width]
        table = np.round(whole).reshape(300, -1)
        detector, row = OnnxDetector(fit(table, SUBJECT, 0.02, picture=of)), table[:1].astype(np.float32)
        took = await median(lambda d=detector, r=row: d.examine(r))
        print(f"image, {'x'.join(map(str, sides))} ({of.numbers:,} numbers): {took:.0f} µs")
    for form, sides in (("PNG", (32, 32)), ("PNG", (224, 224, 3)), ("JPEG", (224, 224, 3)), ("JPEG", (3000, 4000, 3))):
        smooth = np.kron(generator.integers(0, 256, (300, 4, 4)), np.ones((8, 8))).astype(np.uint8)
        judge = ImageDetector(fit(decoded([saved(one, "PNG") for one in smooth]), SUBJECT, 0.02, picture=PICTURE))
        file = saved(generator.integers(0, 256, sides, dtype=np.uint8), form)  # of noise: the dearest
        took = await median(
            lambda f=file, d=judge: d.examine(Images(lambda: [f], len(f))), 500 if sides[0] < 1000 else 5
        )
        print(f"{form}, {'x'.join(map(str, sides))} ({len(file):,} bytes): {took:.0f} µs")
    paragraphs = [part.encode() for topic in topics.values() for part in topic.split("\n\n") if len(part) > 60]
    texts = TextDetector(fit_texts(paragraphs, SUBJECT, 0.02))
    long = b" ".join(paragraphs)
    for size, runs in ((100, RUNS), (1_000, RUNS), (4_000, RUNS), (16_000, RUNS), (1 << 20, 20)):
        text = (long * 3)[:size]
        given = Texts(lambda text=text: [text])
        print(f"text, {size:,} bytes: {await median(lambda g=given: texts.examine(g), runs):.0f} µs")


if __name__ == "__main__":
    asyncio.run(main())
