"""The digits of scikit-learn on cluttered canvases of 128 x 128 pixels, as a detection set in the layout of YOLO.

python make_data.py digits            1200 images to train, 300 to validate, 300 to test
python make_data.py digits --tiny     128, 48 and 48
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

Box = tuple[int, int, int, int, int]
"""left, top, right, bottom in pixels, and the digit"""
SIZE = 128
SPLITS = {"train": 1, "val": 2, "test": 3}
"""the seed of each; the digits to train with are others than those to validate and to test with"""


def canvas(rng: np.random.Generator, images: Any, labels: Any, pool: Any) -> tuple[Any, list[Box]]:
    """One image, uint8 [128, 128, 3], and its boxes: one to five digits of ``pool`` over noise, lines and frames."""
    import cv2

    background = rng.uniform(40, 160)
    image = np.full((SIZE, SIZE, 3), background, np.float32) + rng.normal(0, 12, (SIZE, SIZE, 3))
    ramp = np.linspace(-30, 30, SIZE)
    image += ramp[None, :, None] * rng.uniform(-1, 1) + ramp[:, None, None] * rng.uniform(-1, 1)
    for _ in range(rng.integers(2, 6)):
        ends = [int(each) for each in rng.integers(0, SIZE, 4)]
        colour = [float(each) for each in rng.uniform(20, 230, 3)]
        draw = cv2.line if rng.random() < 0.6 else cv2.rectangle
        draw(image, (ends[0], ends[1]), (ends[2], ends[3]), colour, int(rng.integers(1, 3)))
    boxes: list[Box] = []
    wanted = rng.integers(1, 6)
    for _ in range(wanted * 4):
        if len(boxes) >= wanted:
            break
        chosen = rng.choice(pool)
        width = int(rng.integers(16, 48))
        height = int(width * rng.uniform(0.9, 1.3))
        if height >= SIZE:
            continue
        x, y = int(rng.integers(0, SIZE - width)), int(rng.integers(0, SIZE - height))
        if any(x < b[2] and x + width > b[0] and y < b[3] and y + height > b[1] for b in boxes):
            continue
        digit = images[chosen].astype(np.float32) / 16
        mask = cv2.resize(digit, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
        ink = rng.uniform(150, 255, 3) if rng.random() < 0.6 else rng.uniform(0, 60, 3)
        part = image[y : y + height, x : x + width]
        image[y : y + height, x : x + width] = part * (1 - mask) + ink.astype(np.float32) * mask
        rows, columns = np.where(mask[..., 0] > 0.25)
        left, top = x + int(columns.min()), y + int(rows.min())
        right, bottom = x + int(columns.max()) + 1, y + int(rows.max()) + 1
        boxes.append((left, top, right, bottom, int(labels[chosen])))
    return image.clip(0, 255).astype(np.uint8), boxes


def make(folder: Path, *, tiny: bool = False) -> Path:
    """Write the set to a folder. Returns the path of its ``data.yaml``."""
    import cv2
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    pools = {"train": order[:1300], "val": order[1300:], "test": order[1300:]}
    for split, seed in SPLITS.items():
        count = (128 if tiny else 1200) if split == "train" else (48 if tiny else 300)
        rng = np.random.default_rng(seed)
        pictures, texts = folder / "images" / split, folder / "labels" / split
        pictures.mkdir(parents=True, exist_ok=True)
        texts.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, boxes = canvas(rng, digits.images, digits.target, pools[split])
            cv2.imwrite(str(pictures / f"{index:04d}.png"), image)
            lines = [
                f"{digit} {(left + right) / 2 / SIZE:.5f} {(top + bottom) / 2 / SIZE:.5f} "
                f"{(right - left) / SIZE:.5f} {(bottom - top) / SIZE:.5f}\n"
                for left, top, right, bottom, digit in boxes
            ]
            (texts / f"{index:04d}.txt").write_text("".join(lines))
    names = ", ".join(f"{digit}: d{digit}" for digit in range(10))
    splits = "".join(f"{split}: images/{split}\n" for split in SPLITS)
    file = folder / "data.yaml"
    file.write_text(f"path: {folder.resolve()}\n{splits}names: {{{names}}}\n")
    return file


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the digits as a detection set.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a tenth of the images")
    given = parser.parse_args()
    print(make(given.folder, tiny=given.tiny))
