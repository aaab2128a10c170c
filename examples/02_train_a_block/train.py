"""Train a small YOLO on digits, without and with a block; export the one with the block, compare, and predict.

    python train.py                       three seeds each, some two minutes a run on an idle core
    python train.py --epochs 1 --seeds 1 --tiny

It needs graphsurgery[cpu,torch], ultralytics and scikit-learn, and writes everything to a folder (--folder digits).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from make_data import SIZE, make

HERE = Path(__file__).parent
RECIPE = HERE / "recipe.yaml"
WIDTH = 0.125
"""half of YOLOv8n's"""
HOW = {
    "imgsz": SIZE,
    "batch": 16,
    "nbs": 16,
    "optimizer": "AdamW",
    "lr0": 2e-3,
    "lrf": 0.02,
    "cos_lr": True,
    "warmup_epochs": 1,
    "mosaic": 0.0,  # digits would become too small
    "fliplr": 0.0,  # and others
    "scale": 0.2,
    "erasing": 0.0,
    "cache": "ram",
    "amp": False,
    "val": False,
    "plots": False,
    "verbose": False,
    "exist_ok": True,
}


def architecture(folder: Path) -> Path:
    """The YAML of YOLOv8, narrower and for ten classes."""
    import yaml
    from ultralytics.nn.tasks import yaml_model_load

    rows = yaml_model_load("yolov8n.yaml")
    rows.pop("yaml_file", None)
    rows["nc"] = 10
    depth, _, most = rows["scales"]["n"]
    rows["scales"] = {"n": [depth, WIDTH, most]}
    path = folder / "yolov8-narrow.yaml"
    path.write_text(yaml.safe_dump(rows))
    return path


def train(data: Path, folder: Path, recipe: Path | None, seed: int, epochs: int) -> tuple[Any, float]:
    """One run. Returns the model with the weights of the last epoch, and its mAP50 on the images held out."""
    from graphsurgery.torch.ultralytics import YOLO

    name = f"{'block' if recipe else 'plain'}-{seed}"
    wall, cpu = time.perf_counter(), time.process_time()
    model = YOLO(str(architecture(folder)), recipe=recipe)
    model.train(data=str(data), epochs=epochs, seed=seed, project=str(folder.resolve()), name=name, **HOW)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    metrics = model.val(data=str(data), split="test", imgsz=SIZE, plots=False, verbose=False)
    print(f"{name}: mAP50 {metrics.box.map50:.3f}, {wall / 60:.1f} min ({cpu / 60:.1f} min of CPU)", flush=True)
    return model, float(metrics.box.map50)


def spread(values: list[float]) -> str:
    """Mean and sample deviation."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def deploy(model: Any, data: Path, folder: Path) -> Path:
    """Export, verify every block against its PyTorch module, and draw what the file finds on a picture held out."""
    import graphsurgery as gsx
    from graphsurgery.torch.ultralytics import YOLO

    pictures = data.parent / "images" / "test"
    path = Path(model.export(format="onnx", imgsz=SIZE, images=pictures))
    report = gsx.verify(path, providers=["cpu"])
    print("\n".join(report.lines()))
    found = YOLO(str(path), task="detect").predict(str(pictures / "0000.png"), imgsz=SIZE, conf=0.25, verbose=False)[0]
    drawn = folder / "found.png"
    found.save(str(drawn))
    print(f"{len(found.boxes)} digits found in {pictures / '0000.png'}, drawn in {drawn}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small YOLO on digits, without and with a block.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a tenth of the images")
    parser.add_argument("--folder", type=Path, default=Path("digits"))
    given = parser.parse_args()
    data = make(given.folder, tiny=given.tiny)
    scores: dict[str, list[float]] = {"without a block": [], "with CBAM": []}
    for seed in range(given.seeds):
        for words, recipe in zip(scores, (None, RECIPE), strict=True):
            model, score = train(data, given.folder, recipe, seed, given.epochs)
            scores[words].append(score)
    for words, values in scores.items():
        print(f"mAP50 {words}: {spread(values)} (n = {len(values)})")
    print(f"exported to {deploy(model, data, given.folder)}")


if __name__ == "__main__":
    main()
