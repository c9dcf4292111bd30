"""Whatever text a user brings is drawn as text."""

import io

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
    drawn = [text for text in figure.findobj(Text) if DRAWN in text.get_text()]
    assert drawn and not any(text.get_parse_math() for text in drawn)
    figure.savefig(io.BytesIO())


def test_reconstruction_figure_takes_any_title(tmp_path):
    reconstruction_figure(IMAGES, IMAGES, tmp_path / "figure.png", title=NAME)
    assert (tmp_path / "figure.png").stat().st_size > 1000
