"""Any text of a user is drawn as text."""

import io
import warnings

import numpy as np
import pytest

from laser_jax.figures import (
    comparisons,
    curves,
    embeddings,
    heatmaps,
    reconstruction_figure,
    style,
)

NAME = "$5_to_$9 \\frac{ $x^$ caf\udce9"
DRAWN = "$5_to_$9 \\frac{ $x^$ caf\\udce9"
IMAGES = np.zeros((2, 4, 4, 3))
ATOMS = np.eye(6)
POINTS = np.arange(3), np.arange(3.0)


def picture():
    figure = style.new_figure(2, 2)
    style.picture(figure.subplots(), IMAGES[0], title=NAME)
    return figure


def axes_labels():
    figure = style.new_figure(2, 2)
    style.clean(figure.subplots(), xlabel=NAME, ylabel=NAME, title=NAME)
    return figure


FIGURES = {
    "comparison": lambda: comparisons.reconstruction_comparison(IMAGES, {NAME: IMAGES + 0.1}),
    "slice": lambda: comparisons.channel_slice(IMAGES[0, 0], {NAME: IMAGES[0, 0]}),
    "usage": lambda: comparisons.usage_bars({NAME: np.arange(4)}),
    "curves": lambda: curves.curve_figure({NAME: {"train/loss": POINTS}}, ("train/loss",)),
    "embedding": lambda: embeddings.embedding_figure(ATOMS, np.arange(6), title=NAME),
    "distances": lambda: embeddings.distance_figure(ATOMS, signless=True, title=NAME),
    "heatmap": lambda: heatmaps.heatmap_figure(IMAGES, {NAME: np.ones((2, 2, 2))}, title=NAME),
    "picture": picture,
    "axes": axes_labels,
}


@pytest.mark.parametrize("name", FIGURES)
def test_names_and_titles_are_drawn_as_text(name):
    from matplotlib.text import Text

    figure = FIGURES[name]()
    # A long name may be drawn in several lines.
    drawn = [text for text in figure.findobj(Text) if DRAWN in " ".join(text.get_text().split())]
    assert drawn and not any(text.get_parse_math() for text in drawn)
    figure.savefig(io.BytesIO())


@pytest.mark.parametrize("title", [NAME, "写真"])
def test_reconstruction_figure_takes_any_title(title, tmp_path, recwarn):
    reconstruction_figure(IMAGES, IMAGES, tmp_path / "figure.png", title=title)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert not recwarn.list


@pytest.mark.parametrize("word", ["folder", "写真"])
@pytest.mark.parametrize("separator", ["/", " "])
def test_long_title_stays_within_its_figure_and_keeps_both_ends(word, separator):
    figure = style.new_figure(8, 3)
    style.heading(figure, "first " + separator.join([word] * 200) + " PSNR 25.30 dB")
    figure.subplots()
    with warnings.catch_warnings(action="ignore"):  # the font lacks Chinese
        figure.draw_without_rendering()
    box, (title,) = figure.bbox, figure.texts
    drawn = title.get_window_extent()
    assert box.x0 <= drawn.x0 and drawn.x1 <= box.x1 and drawn.y1 <= box.y1
    text = " ".join(title.get_text().split())
    assert text.startswith("first ") and " ... " in text and text.endswith("PSNR 25.30 dB")
    (axes,) = figure.axes
    assert drawn.y0 > axes.get_window_extent().y1 > 200  # dots: the axes keep their height


def test_long_names_in_legends_are_cut_in_their_middle():
    figure = curves.curve_figure({"a" * 90 + "run 7": {"train/loss": POINTS}}, ("train/loss",))
    (name,) = figure.legends[0].get_texts()
    assert len(name.get_text()) <= 50 and name.get_text().endswith("run 7")
