"""How a block may begin, measured on the first model that train.py trained, which has no block:

    python train.py
    python starts.py

Two tables of mAP50 on the images held out. The first: blocks that nobody has trained. The second: the whole model with
CBAM, trained a little further. Where a deviation stands it is the sample deviation over seeds: of the weights that a
block begins with, of the images that it is calibrated on, of the order of the training.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train import HOW, SIZE, architecture, spread

LAYERS = (15, 18, 21)
REDUCTION = 4
BLOCKS: dict[str, dict[str, int]] = {
    "simam": {},
    "se": {"reduction": REDUCTION},
    "cbam": {"reduction": REDUCTION},
    "nam": {},
}
"""block -> settings"""
DRAWN = ("se", "cbam")
"""what begins with weights drawn at random"""
NO_BLOCK, DEFAULT, GATE, CALIBRATED = "no block", "default", "residual gate", "calibrated"
YAML_WAY = "a YAML with the block in it"
CALIBRATING = 64
"""images"""
TUNING = {**HOW, "lr0": 1e-3, "warmup_epochs": 0}


class Lab:
    """What all measurements share: the trained model without a block, and the data."""

    def __init__(self, folder: Path, seeds: int) -> None:
        self.folder = folder.resolve()
        self.data = str(folder / "data.yaml")
        self.base = folder / "plain-0" / "weights" / "last.pt"
        self.seeds = seeds

    def untrained(self, block: str, start: str) -> str:
        """mAP50 of the base with a block, for each seed that changes anything."""
        drawn = start in (CALIBRATED, YAML_WAY) or (start == DEFAULT and block in DRAWN)
        seeds = range(self.seeds if drawn else 1)
        return spread([self._score(self._begun(block, start, seed)) for seed in seeds])

    def tuned(self, block: str, start: str, epochs: int) -> str:
        """mAP50 after a short training of the whole model."""
        return spread([self._tuned(block, start, seed, epochs) for seed in range(self.seeds)])

    def _tuned(self, block: str, start: str, seed: int, epochs: int) -> float:
        model = self._begun(block, start, seed)
        name = f"tuned-{start.replace(' ', '-')}-{seed}"
        model.train(data=self.data, epochs=epochs, seed=seed, project=str(self.folder), name=name, **TUNING)
        return self._score(model)

    def _score(self, model: Any) -> float:
        """On the images held out."""
        return float(model.val(data=self.data, split="test", imgsz=SIZE, plots=False, verbose=False).box.map50)

    def _begun(self, block: str, start: str, seed: int) -> Any:
        """The base with a block that begins in some way."""
        from graphsurgery.torch.ultralytics import YOLO

        if start == YAML_WAY:
            return self._from_yaml(seed)
        model = YOLO(str(self.base))
        if start == NO_BLOCK:
            return model
        entry: dict[str, Any] = {"module": block, "settings": BLOCKS[block], "seed": seed}
        entry["after"] = [f"model.{layer}" for layer in LAYERS]
        entry["gate"] = "residual" if start == GATE else "none"
        if start == CALIBRATED:
            entry |= {"init": "calibrated", "images": str(self._pictures(seed))}
        model.attach([entry])
        return model

    def _pictures(self, seed: int) -> Path:
        """A folder with some of the images to train on; others for each seed."""
        chosen = self.folder / f"calibration-{seed}"
        chosen.mkdir(exist_ok=True)
        every = sorted((self.folder / "images" / "train").iterdir())
        for each in every[seed * CALIBRATING : (seed + 1) * CALIBRATING]:
            shutil.copy(each, chosen)
        return chosen

    def _from_yaml(self, seed: int) -> Any:
        """What a YAML with CBAM in it takes of the base: the tensors that have the same name and shape in both."""
        import torch
        import yaml
        from ultralytics.nn import tasks

        from graphsurgery.patterns.modules.cbam import CBAM
        from graphsurgery.torch.ultralytics import YOLO

        tasks.CBAM = CBAM  # as if it had been written into the package
        torch.manual_seed(seed)
        base = YOLO(str(self.base)).model.model
        layout = yaml.safe_load(architecture(self.folder).read_text())
        widths = {layer: base[layer].cv2.conv.out_channels for layer in LAYERS}
        rows = list(with_blocks(layout["backbone"] + layout["head"], widths))
        count = len(layout["backbone"])  # all blocks come behind it
        path = self.folder / "yolov8-narrow-cbam.yaml"
        path.write_text(yaml.safe_dump({**layout, "backbone": rows[:count], "head": rows[count:]}))
        return YOLO(str(path)).load(str(self.base))


def with_blocks(rows: list[Any], widths: dict[int, int]) -> Iterator[list[Any]]:
    """The rows of a YAML with CBAM behind some layers; what read such a layer reads its block."""

    def moved(source: int) -> int:
        return source + sum(layer <= source for layer in widths)

    for layer, (source, *rest) in enumerate(rows):
        yield [[moved(each) for each in source] if isinstance(source, list) else moved(source), *rest]
        if layer in widths:
            yield [-1, 1, "CBAM", [widths[layer], "official", widths[layer] // REDUCTION]]


def show_untrained(lab: Lab) -> None:
    """Print the first table."""
    starts = (DEFAULT, GATE, CALIBRATED)
    print(f"| untrained; the base has {lab.untrained('', NO_BLOCK)} | {' | '.join(starts)} |\n|---|---|---|---|")
    for block in BLOCKS:
        print(f"| `{block}` | {' | '.join(lab.untrained(block, start) for start in starts)} |", flush=True)


def show_tuned(lab: Lab, epochs: int) -> None:
    """Print the second table."""
    print(f"| CBAM | before | after {epochs} epochs |\n|---|---|---|")
    for start in (NO_BLOCK, GATE, DEFAULT, YAML_WAY):
        print(f"| {start} | {lab.untrained('cbam', start)} | {lab.tuned('cbam', start, epochs)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how a block may begin, on the model that train.py trained.")
    parser.add_argument("--epochs", type=int, default=2, help="of the second table, 75 steps each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("digits"), help="what train.py wrote")
    given = parser.parse_args()
    lab = Lab(given.folder, given.seeds)
    show_untrained(lab)
    print()
    show_tuned(lab, given.epochs)


if __name__ == "__main__":
    main()
