"""What the tool makes otherwise than when the corpus was recorded, on purpose: which results, and why.

Keys are names in index.json ("torchscript/fp16", a call, a command, an insert request), or patterns in which * stands
for any text. A result that is named here and does not differ is an error, so the list does not outlive its reasons.
"""

from __future__ import annotations

import re

EDITION = "the block has a form of edition 2, which other readers than TensorRT and onnxruntime take as well"
_NAMED = "the block has a second variant, and its record says which of the two it is: psablock[yolo11], lska[unit]"
CHANGED: dict[str, str] = {
    "errors_and_their_exit_codes": "BaseDiffers is new: a model is not the one that blocks were trained in",
    "narrow/lska": _NAMED,
    "narrow/psablock": _NAMED,
    "torchscript/fp16": _NAMED,
    'example: *"module": "lska"*': _NAMED,
    'example: *"module": "psablock"*': _NAMED,
    **{
        f'*: *"module": "{module}*': EDITION
        for module in (
            *("cbam[official]", "cbam[ultralytics]", "cbam[timm]", "cbam[cv-attention]"),
            *("bam[", "gc[official]", "gc[timm-add]", "lsk[", "mhsa[botnet]"),
            *('a2"', "aifi[", "swin[", 'ema"', 'mlca"'),
        )
    },
    **{
        f"narrow/{block}": EDITION
        for block in ("a2", "aifi", "bam", "cbam", "ema", "gc", "lsk", "mhsa", "mlca", "swin")
    },
    "narrow/triplet": EDITION,
    "*/forms": EDITION,
    "dynamo/paths": EDITION,
    "example/backbone": EDITION,
    "example/neck": EDITION,
    "half/precisions": EDITION,
    "torchscript/starts": EDITION,
    "torchscript/targets": EDITION,
    "insert_every_argument": EDITION,
    "insert, every option": EDITION,
}


def reason(name: str) -> str | None:
    """Why a result is no longer what was recorded, if that is meant."""
    return next((why for pattern, why in CHANGED.items() if matches(pattern, name)), None)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern, in which * stands for any text, is that of a name."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
