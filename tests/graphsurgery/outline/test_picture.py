"""Pictures as they are written: what stands out, labels, titles, PNG and PDF, text that is safe."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from graphsurgery.errors import MissingDependency, RequestError
from graphsurgery.modelfile.model import ModelFile
from graphsurgery.outline.outline import Outline
from graphsurgery.outline.picture import raster
from graphsurgery.outline.picture.layout import arrange
from graphsurgery.selection.sites import SiteFinder
from tests.exports import export
from tests.models import model, node, value
from tests.pictures import SVG, drawn_parts, everything, outline


def test_inserted_blocks_are_between_and_stand_out() -> None:
    root = ElementTree.fromstring(outline("yolov8n").as_svg())
    fills = {}
    for group in root.iter(f"{SVG}g"):
        fills[group.findall(f"{SVG}text")[0].text] = group.findall(f"{SVG}rect")[0].get("fill")
    assert fills["simam"] == fills["se"] == "url(#hatch)", "for print in black and white"
    assert len(root.findall(f"{SVG}defs/{SVG}pattern[@id='hatch']")) == 1
    assert fills["simam"] not in {fill for title, fill in fills.items() if title not in ("simam", "se")}
    drawing = arrange(*drawn_parts(outline("yolov8n")))
    wires = {(line.source.title, line.target.title) for line in drawing.lines}
    assert {
        ("C2f[3]", "simam"),
        ("simam", "SPPF[0]"),
        ("C2f[5]", "se"),
        ("se", "Conv[35]"),
        ("se", "Detect[0]"),
    } <= wires
    assert not {("C2f[3]", "SPPF[0]"), ("C2f[5]", "Detect[0]")} & wires


@pytest.mark.parametrize("name", ["yolo11n", "rtdetr-l", "nanodet-plus"])
def test_levels_stand_at_their_boxes_and_bands(name: str) -> None:
    found = outline(name)
    tags = {box.tag: box for box in everything(drawn_parts(found)[0]) if box.tag}
    drawing = arrange(*drawn_parts(found))
    for kind in "PN":
        for each in (3, 4, 5):
            assert tags[f"{kind}{each}"].stride == 2**each
            (band,) = [band for band in drawing.bands if f"{kind}{each}" in band.levels]
            assert band.title == f"stride {2**each}"
    for row in found.rows():
        for role in row.roles:
            if role in ("p3", "p4", "p5", "n3", "n4", "n5"):
                stands = [box for box in everything(drawn_parts(found)[0]) if role.upper() in box.tag.split()]
                assert len(stands) == 1
                assert row.tensor in stands[0].tooltip


def test_a_title() -> None:
    found = outline("yolov8n")
    for text in (found.as_svg(title="<b> & more"), found.as_html(title="<b> & more")):
        assert "&lt;b&gt; &amp; more" in text
        assert "<b>" not in text
        assert found.name not in text
    assert f"<title>{found.name}</title>" in found.as_svg()
    assert "<title></title>" in found.as_svg(title="")


def test_a_png_and_a_pdf() -> None:
    found = outline("yolo11n")
    wide, high = (float(ElementTree.fromstring(found.as_svg()).get(side, "")) for side in ("width", "height"))
    image = Image.open(io.BytesIO(found.as_png(title="a <title>")))
    assert image.format == "PNG"
    assert image.size == (pytest.approx(2 * wide, abs=2), pytest.approx(2 * high, abs=2))
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    pink = (pixels == (255, 179, 211)).all(1).sum()
    assert pink > 10_000, "inserted blocks are there"
    page = found.as_pdf()
    assert page.startswith(b"%PDF-")
    assert page.rstrip().endswith(b"%%EOF")
    assert len(page) > 10_000


def test_a_large_png_has_fewer_pixels_or_none() -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" viewBox="0 0 9 9"></svg>'
    image = Image.open(io.BytesIO(raster.rasterise(svg.format(20, 20_000), "png")))
    assert image.size == (32, 32_000)
    with pytest.raises(RequestError, match="a picture of 20 x 40,000 is too large for PNG"):
        raster.rasterise(svg.format(20, 40_000), "png")
    assert raster.rasterise(svg.format(20, 40_000), "pdf").startswith(b"%PDF-")


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_without_the_library(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(name: str) -> None:
        raise error(name)

    monkeypatch.setattr(raster, "import_module", fail)
    with pytest.raises(MissingDependency, match="the extra pictures"):
        outline("yolov8n").as_png()


def test_labels() -> None:
    text = outline("rtdetr-l").as_svg()
    root = ElementTree.fromstring(text)
    labels = [element.text for element in root.iter(f"{SVG}text")]
    for label in ("HGBlock[4]", "/model.7 · 1024×40×40", "model.7.simam", "stride 16", "neck", "inserted block"):
        assert label in labels
    tooltips = [element.text or "" for element in root.iter(f"{SVG}title")]
    (told,) = [tooltip for tooltip in tooltips if tooltip.startswith("RepC3[0] ")]
    assert "tensor: /model.16/Add_output_0" in told
    assert "read by: model.17" in told
    assert "a good place" in told


def test_the_same_model_gives_the_same_bytes() -> None:
    path = export("yolov8n", "simplified")
    drawn = {Outline(SiteFinder(ModelFile.load(path))).as_html() for _ in range(2)}
    assert len(drawn) == 1


def test_names_are_escaped() -> None:
    nodes = [
        node("Relu", ["x"], ["</svg><script>&\x1b"], '/a"<b>&/Relu'),
        node("Relu", ["</svg><script>&\x1b"], ["y"], "/c/Relu"),
    ]
    found = Outline(SiteFinder(ModelFile.load(model(nodes, [value("x")], [value("y")]))))
    root = ElementTree.fromstring(found.as_svg())
    assert "<script>" not in found.as_html()
    assert any("</svg><script>&\ufffd" in (element.text or "") for element in root.iter(f"{SVG}title"))


def test_it_needs_nothing_beside_it() -> None:
    for text in (outline("yolov8n").as_svg(), outline("yolov8n").as_html()):
        without = text.replace("http://www.w3.org/2000/svg", "")
        assert "http" not in without
        assert "<script" not in without
        assert "@import" not in without
    assert outline("yolov8n").as_html().startswith("<!DOCTYPE html>")
