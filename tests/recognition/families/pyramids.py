"""Necks that are unlike an FPN: BiFPN, CSP-PAN, gather and distribute, deconvolutions, dilated encoders, and the simple
pyramid of a plain transformer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exports.zoo.layers import Conv
from tests.recognition.families.parts import Marks, MobileNetV1, ResNet, Separable, flat, larger, plain


class Towers(nn.Module):
    """Two separable towers that all levels share, as EfficientDet's, or 3x3 ones."""

    def __init__(self, width: int, separable: bool = True) -> None:
        super().__init__()

        def tower() -> nn.Module:
            return Separable(width, width, act=nn.SiLU) if separable else Conv(width, width, 3)

        self.cls, self.reg = tower(), tower()
        self.score, self.box = nn.Conv2d(width, 20, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        scores = [flat(self.score(self.cls(x)), 20) for x in maps]
        boxes = [flat(self.box(self.reg(x)), 4) for x in maps]
        return torch.cat(scores, 1), torch.cat(boxes, 1)


class Fused(nn.Module):
    """A weighted sum of maps, an activation and a separable convolution (BiFPN's node)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.rand(count) + 0.5)
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)
        )

    def forward(self, *maps: Tensor) -> Tensor:
        weights = functional.relu(self.weights)
        weights = weights / (weights.sum() + 1e-4)
        return self.conv(functional.silu(sum((w * x for w, x in zip(weights, maps, strict=True)), torch.zeros(()))))


class BiFPNLayer(nn.Module):
    """Down to the finest level and up again, with edges from the same level across."""

    def __init__(self, width: int, levels: int = 5) -> None:
        super().__init__()
        self.down = nn.ModuleList(Fused(width, 2) for _ in range(levels - 1))
        self.up = nn.ModuleList(Fused(width, 3 if i < levels - 2 else 2) for i in range(levels - 1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        middle = list(maps)
        for i in range(len(maps) - 2, -1, -1):
            middle[i] = self.down[i](maps[i], larger(middle[i + 1]))
        found = [middle[0]]
        for i in range(1, len(maps)):
            halved = functional.max_pool2d(found[-1], 3, 2, 1)
            inner = (maps[i], middle[i]) if i < len(maps) - 1 else (maps[i],)
            found.append(self.up[i - 1](*inner, halved))
        return found


class EfficientDet(nn.Module):
    """Tan et al., 2020: three maps of the backbone, two levels by pooling, BiFPN layers, shared towers."""

    def __init__(self, width: int = 16, layers: int = 2) -> None:
        super().__init__()
        self.backbone = MobileNetV1(8)
        self.lateral = nn.ModuleList(plain(c, width) for c in self.backbone.widths)
        self.extra = plain(self.backbone.widths[-1], width)
        self.neck = nn.ModuleList(BiFPNLayer(width) for _ in range(layers))
        self.towers = Towers(width)
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5", "n6", "n7")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.marks.of("p", self.backbone(x))
        deeper = functional.max_pool2d(self.extra(maps[-1]), 3, 2, 1)
        maps = [conv(x) for conv, x in zip(self.lateral, maps, strict=True)]
        maps += [deeper, functional.max_pool2d(deeper, 3, 2, 1)]
        for layer in self.neck:
            maps = layer(maps)
        return self.towers(self.marks.of("n", maps))


class CenterNet(nn.Module):
    """Zhou et al., 2019: deconvolutions up to stride 4, and the peaks of the heat map by a pooling of itself."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.backbone = ResNet(8, 0)
        layers: list[nn.Module] = []
        inputs = self.backbone.widths[-1]
        for _ in range(3):
            layers += [nn.ConvTranspose2d(inputs, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        self.deconv = nn.Sequential(*layers)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, values, 1))
            for values in (5, 2, 2)
        )
        self.marks = Marks("p2", "p3", "p4", "p5", "n2")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        (x,) = self.marks.of("n", [self.deconv(self.marks.of("p", self.backbone(x), 2)[-1])], 2)
        heat, size, offset = (head(x) for head in self.heads)
        heat = heat.sigmoid()
        peaks = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat).float()
        scores, places = torch.topk(peaks.flatten(1), 10)
        return scores, places, size, offset


class YOLOF(nn.Module):
    """Chen et al., 2021: one level, an encoder of dilated residual blocks, two towers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.backbone = ResNet(8, 0)
        self.lateral = nn.Sequential(plain(self.backbone.widths[-1], width), plain(width, width, 3))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                Conv(width, width // 4, act=nn.ReLU),
                nn.Conv2d(width // 4, width // 4, 3, padding=d, dilation=d),
                nn.BatchNorm2d(width // 4),
                nn.ReLU(),
                Conv(width // 4, width, act=nn.ReLU),
            )
            for d in (2, 4)
        )
        self.towers = Towers(width, False)
        self.marks = Marks("p2", "p3", "p4", "p5", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.lateral(self.marks.of("p", self.backbone(x), 2)[-1])
        for block in self.blocks:
            x = x + block(x)
        return self.towers(self.marks.of("n", [x], 5))


class CSP(nn.Module):
    """PicoDet's CSP layer: one depthwise separable 5x5 block in one of two branches."""

    def __init__(self, inputs: int, outputs: int, act: type[nn.Module] = nn.Hardswish) -> None:
        super().__init__()
        half = outputs // 2
        self.main, self.short = Conv(inputs, half, act=act), Conv(inputs, half, act=act)
        self.block = nn.Sequential(Conv(half, half, act=act), Separable(half, half, kernel=5, act=act))
        self.last = Conv(2 * half, outputs, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.block(self.main(x)), self.short(x)], 1))


class PicoDet(nn.Module):
    """Yu et al., 2021: laterals of one width, CSP-PAN with a fourth level, separable towers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        act, w = nn.Hardswish, width
        self.backbone = MobileNetV1(8, act)
        self.lateral = nn.ModuleList(Conv(c, w, act=act) for c in self.backbone.widths)
        self.top_down = nn.ModuleList(CSP(2 * w, w) for _ in range(2))
        self.downs = nn.ModuleList(Separable(w, w, 2, 5, act) for _ in range(2))
        self.bottom_up = nn.ModuleList(CSP(2 * w, w) for _ in range(2))
        self.first_top, self.second_top = Separable(w, w, 2, 5, act), Separable(w, w, 2, 5, act)
        self.towers = nn.ModuleList(nn.Sequential(*(Separable(w, w, 1, 5, act) for _ in range(2))) for _ in range(4))
        self.out = nn.ModuleList(nn.Conv2d(w, 24, 1) for _ in range(4))
        self.marks = Marks("p3", "p4", "p5", "n3", "n4", "n5", "n6")

    def forward(self, x: Tensor) -> Tensor:
        maps = self.marks.of("p", self.backbone(x))
        c3, c4, c5 = (conv(x) for conv, x in zip(self.lateral, maps, strict=True))
        middle = self.top_down[0](torch.cat([larger(c5), c4], 1))
        low = self.top_down[1](torch.cat([larger(middle), c3], 1))
        out4 = self.bottom_up[0](torch.cat([self.downs[0](low), middle], 1))
        out5 = self.bottom_up[1](torch.cat([self.downs[1](out4), c5], 1))
        top = self.first_top(c5) + self.second_top(out5)
        maps = self.marks.of("n", [low, out4, out5, top])
        found = [flat(out(tower(x)), 24) for x, tower, out in zip(maps, self.towers, self.out, strict=True)]
        return torch.cat(found, 1)


class GoldYOLO(nn.Module):
    """Wang et al., 2023, its low branch: maps of all strides are gathered at one, and gates distribute the result."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.backbone = ResNet(8, 0)
        w = width
        self.fuse = nn.Sequential(
            Conv(sum(self.backbone.widths), w), *(Conv(w, w, 3) for _ in range(3)), Conv(w, 2 * w)
        )
        self.lateral = nn.ModuleList(Conv(c, w) for c in self.backbone.widths[1:])
        self.local = nn.ModuleList(plain(w, w) for _ in range(2))
        self.embed = nn.ModuleList(plain(w, w) for _ in range(2))
        self.gate = nn.ModuleList(plain(w, w) for _ in range(2))
        self.rep = nn.ModuleList(Conv(w, w, 3) for _ in range(2))
        self.up = nn.ModuleList(nn.Sequential(Conv(2 * w, w, 3, 2), Conv(w, w, 3)) for _ in range(2))
        self.heads = Towers(w, False)
        self.marks = Marks("p2", "p3", "p4", "p5", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c2, c3, c4, c5 = self.marks.of("p", self.backbone(x), 2)
        gathered = [functional.avg_pool2d(c2, 4), functional.avg_pool2d(c3, 2), c4, larger(c5)]
        info = self.fuse(torch.cat(gathered, 1)).chunk(2, 1)
        p3, p4, p5 = (conv(x) for conv, x in zip(self.lateral, (c3, c4, c5), strict=True))
        middle = self._injected(0, p4, info[0])
        low = self._injected(1, p3, larger(info[1]))
        out4 = self.up[0](torch.cat([low, larger(middle)], 1))
        out5 = self.up[1](torch.cat([out4, larger(p5)], 1))
        return self.heads(self.marks.of("n", [low, out4, out5]))

    def _injected(self, i: int, local: Tensor, info: Tensor) -> Tensor:
        return self.rep[i](self.local[i](local) * self.gate[i](info).sigmoid() + self.embed[i](info))


class ViTDet(nn.Module):
    """Li et al., 2022: a plain transformer at stride 16, and a pyramid of its last map alone."""

    def __init__(self, width: int = 32, neck: int = 16) -> None:
        super().__init__()
        import timm

        self.vit = timm.create_model(
            "vit_tiny_patch16_224", pretrained=False, img_size=128, embed_dim=width, depth=2, num_heads=4, num_classes=0
        )
        w = width
        twice = (nn.ConvTranspose2d(w, w, 2, 2), nn.BatchNorm2d(w), nn.GELU(), nn.ConvTranspose2d(w, w, 2, 2))
        self.levels = nn.ModuleList(
            [
                nn.Sequential(*twice),
                nn.ConvTranspose2d(w, w, 2, 2),
                nn.Identity(),
                nn.MaxPool2d(2, 2),
            ]
        )
        self.out = nn.ModuleList(nn.Sequential(plain(w, neck), plain(neck, neck, 3)) for _ in range(4))
        self.towers = Towers(neck, False)
        self.marks = Marks("p4", "n2", "n3", "n4", "n5")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.vit.forward_features(x)[:, 1:]
        (x,) = self.marks.of("p", [tokens.transpose(1, 2).reshape(x.shape[0], -1, 8, 8)], 4)
        maps = [out(level(x)) for level, out in zip(self.levels, self.out, strict=True)]
        return self.towers(self.marks.of("n", maps, 2))
