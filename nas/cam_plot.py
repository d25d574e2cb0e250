"""The picture of `nas cam`: a row per image, a column per network, the heat over the image."""

from __future__ import annotations

import unicodedata
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont
from plotly.colors import sequential

from nas.cam import Cam, View
from nas.quantities import format_quantity
from search_space import cost
from search_space.files import write_file

# lengths in pixels
CELL, GAP, MARGIN, CAPTION, HEADER, FOOTER = 144, 12, 20, 32, 66, 46
HEAT = 0.55  # the heat's share of a cell's colour

# Okabe and Ito's green and vermilion, darker, which the colour-blind can tell apart; the marks differ in form too
RIGHT, WRONG, TEXT, FAINT = "#007a5a", "#c04a00", "#1a1a1a", "#5f5f5f"
_ANCHORS = np.array([ImageColor.getrgb(colour) for colour in sequential.Inferno], dtype=float)

Floats = NDArray[np.floating]


def write_plot(cam: Cam, path: Path) -> None:
    """Write the picture of `draw` as PNG.

    Raises:
        InputError: the disk is full, or the folder can't be written.
    """
    file = BytesIO()
    draw(cam).save(file, "png")
    write_file(path, file.getvalue())


def draw(cam: Cam) -> Image.Image:
    """The images at the left, then what each network looks at for the true class, and whether it got it right."""
    columns, rows = 1 + len(cam.views), len(cam.images)
    width = 2 * MARGIN + columns * (CELL + GAP) - GAP
    height = 2 * MARGIN + HEADER + rows * (CELL + CAPTION) + FOOTER
    picture = Image.new("RGB", (width, height), "white")
    pen = _Pen(picture)
    pen.write(_left(0), MARGIN, "image", 18)
    pen.write(_left(0), MARGIN + 22, "held out", 13, FAINT)
    pen.write(_left(0), MARGIN + 39, "true class below", 13, FAINT)
    for column, view in enumerate(cam.views, 1):
        _header(pen, _left(column), view)
    for row, (pixels, label) in enumerate(zip(cam.images, cam.labels, strict=True)):
        top = MARGIN + HEADER + row * (CELL + CAPTION)
        image = Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.BICUBIC)
        picture.paste(image, (_left(0), top))
        pen.write(_left(0), top + CELL + 3, cam.classes[label], 14)
        for column, view in enumerate(cam.views, 1):
            picture.paste(overlay(image, view.maps[row]), (_left(column), top))
            _caption(pen, _left(column), top + CELL + 3, cam, view, row)
    _footer(pen, height - MARGIN - FOOTER + 20)
    return picture


def overlay(image: Image.Image, heat: Floats) -> Image.Image:
    """An image under its activation map, enlarged bilinearly and stretched from its least to its largest value."""
    enlarged = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR))
    span = float(np.ptp(enlarged)) or 1.0
    grey = image.convert("L").convert("RGB")  # so that every colour is the heat's
    return Image.blend(grey, Image.fromarray(_coloured((enlarged - enlarged.min()) / span)), HEAT)


def _coloured(heat: Floats) -> NDArray[np.uint8]:
    """Colours (... x 3) of values in [0, 1], along a scale of even lightness steps."""
    at = np.linspace(0, 1, len(_ANCHORS))
    return np.stack([np.interp(heat, at, channel) for channel in _ANCHORS.T], axis=-1).round().astype(np.uint8)


def _left(column: int) -> int:
    return MARGIN + column * (CELL + GAP)


class _Pen:
    """Writes in Pillow's own font, never wider than a cell."""

    def __init__(self, picture: Image.Image) -> None:
        self.picture = picture
        self.draw = ImageDraw.Draw(picture)

    def write(
        self, x: int, y: int, text: str, size: int, colour: str = TEXT, width: int = CELL, anchor: str = "la"
    ) -> None:
        font = ImageFont.load_default(size)
        plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
        shown = plain.encode("ascii", "backslashreplace").decode()  # the font has no other letters
        while font.getlength(shown) > width:
            shown = shown.removesuffix("...")[:-1] + "..."
        self.draw.text((x, y), shown, colour, font, anchor)

    def mark(self, left: int, top: int, right: bool) -> None:
        """A tick or a cross, 10 px wide."""
        if right:
            self.draw.line([(left, top + 6), (left + 4, top + 10), (left + 10, top + 1)], RIGHT, 2, "curve")
        else:
            self.draw.line([(left + 1, top + 1), (left + 9, top + 9)], WRONG, 2)
            self.draw.line([(left + 1, top + 9), (left + 9, top + 1)], WRONG, 2)


def _header(pen: _Pen, left: int, view: View) -> None:
    network = view.architecture
    pen.write(left, MARGIN, view.name, 18)
    pen.write(left, MARGIN + 22, f"{view.accuracy:.1%} accuracy", 13, FAINT)
    pen.write(left, MARGIN + 39, f"{format_quantity(cost.flops(network))} FLOPs, {network.resolution} px", 13, FAINT)


def _caption(pen: _Pen, left: int, top: int, cam: Cam, view: View, row: int) -> None:
    """What the network took the image for, and how sure it was."""
    guess = int(view.probabilities[row].argmax())
    right = guess == int(cam.labels[row])
    pen.mark(left, top + 3, right)
    pen.write(left + 15, top, cam.classes[guess], 14, RIGHT if right else WRONG, CELL - 55)
    sure = f"{view.probabilities[row, guess]:.0%}"
    pen.write(left + CELL, top, sure, 14, FAINT, anchor="ra")


def _footer(pen: _Pen, top: int) -> None:
    """What the colours mean."""
    scale = Image.fromarray(_coloured(np.linspace(0, 1, CELL)[None].repeat(12, axis=0)))
    pen.picture.paste(scale, (_left(1), top))
    pen.write(_left(1), top + 14, "least", 13, FAINT)
    pen.write(_left(1) + CELL, top + 14, "most", 13, FAINT, anchor="ra")
    words = "evidence for the true class, each map on its own scale; below it the predicted class and how sure"
    pen.write(_left(2), top - 3, words, 13, FAINT, width=4 * (CELL + GAP))
