"""What a detector of encoded images sees, with and without the numbers that say how rough each cell is.

    python benchmarks/encoded_images.py

prints, for scikit-learn's digits as PNG and JPEG of 128 x 128 pixels, the share of images that are called suspicious at
.01: ordinary ones, and others; before it, what the largest images take to decode, each in a process of its own. Nothing
here decides anything; docs/adr/0015-detector-kinds.md reads it.
"""

import io
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

sys.path.insert(0, str(Path(__file__).parents[1]))

from proxy.adapters.image_decoder import headers, rows
from proxy.detection.fit import Subject, fit, statistics
from proxy.detection.picture import SIDE

SIZE, ALPHA, FITTED = 128, 0.01, 1200


def numbers(images: Iterable[np.ndarray], form: str) -> np.ndarray:
    """Return what is judged of images, once written in a form."""
    found = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(np.clip(image, 0, 255).round().astype(np.uint8)).save(file, form, quality=90)
        found.append(rows(headers([file.getvalue()]))[0])
    return np.array(found)


DECODE = """
import re, sys, time
from proxy.adapters.image_decoder import headers, rows
most = lambda: int(re.search("VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
data, before, begun = sys.stdin.buffer.read(), most(), time.perf_counter()
rows(headers([data]))
print(f"{len(data):,} bytes: {time.perf_counter() - begun:.2f} s, {(most() - before) / 1024:.0f} MiB more")
"""


def largest() -> None:
    """Print time and memory of images that have as many pixels as may be."""
    rng = np.random.default_rng(0)
    nothing, noise = np.zeros((4096, 4096, 4), np.uint8), rng.integers(0, 256, (4096, 4096, 3), dtype=np.uint8)
    for words, pixels, mode, form in (
        ("PNG of zeros with alpha", nothing, "RGBA", "PNG"),
        ("progressive JPEG of zeros, CMYK", nothing, "CMYK", "JPEG"),
        ("progressive JPEG of noise", noise, "RGB", "JPEG"),
    ):
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, form, progressive=True, subsampling=0)
        done = subprocess.run(
            [sys.executable, "-c", DECODE], cwd=sys.path[0], input=file.getvalue(), stdout=-1, check=True
        )
        print(f"{words}, {done.stdout.decode().strip()}")


def main() -> None:
    """Print one line for each form and each set of numbers."""
    rng = np.random.default_rng(0)
    small = [Image.fromarray((digit / 16 * 255).astype(np.uint8)) for digit in load_digits().images]
    digits = [np.asarray(one.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=float) for one in small]
    photos = [photo.mean(axis=2) for photo in load_sample_images().images]
    held = digits[FITTED:]

    def patch() -> np.ndarray:
        photo = photos[rng.integers(len(photos))]
        y, x = (int(rng.integers(side - SIZE)) for side in photo.shape)
        return photo[y : y + SIZE, x : x + SIZE]

    def noise(share: float, cell: int) -> list[np.ndarray]:
        sides = (SIZE // cell, SIZE // cell)
        signs = (np.kron(rng.choice([-1, 1], sides), np.ones((cell, cell))) for _ in range(200))
        return [image + 255 * share * sign for image, sign in zip(held, signs, strict=False)]

    given = {
        "ordinary": held,
        "uniform": [rng.uniform(0, 255, (SIZE, SIZE)) for _ in range(200)],
        "photos": [patch() for _ in range(200)],
        "noise .05": noise(0.05, 1),
        "noise .1": noise(0.1, 1),
        "noise .1 in cells of 16": noise(0.1, 16),
        "mixup": [(held[a] + held[b]) / 2 for a, b in rng.integers(len(held), size=(200, 2))],
    }
    largest()
    for form in ("PNG", "JPEG"):
        learned = numbers(digits[:FITTED], form)
        seen = {name: numbers(images, form) for name, images in given.items()}
        for words, taken in (("cells and roughness", slice(None)), ("cells alone", slice(SIDE * SIDE))):
            facts = fit(learned[:, taken], Subject("digits", ("m",)), ALPHA)
            shares = {
                name: float((statistics(facts, values[:, taken]) > facts.threshold).mean())
                for name, values in seen.items()
            }
            print(f"{form}, {words}: " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))


if __name__ == "__main__":
    main()
