"""The style of all figures: size, fonts, and colours that colour-blind readers can distinguish."""

import textwrap
import unicodedata

import numpy as np

from laser_jax.paths import printable

# Okabe and Ito, Color universal design, 2008: distinct under all common forms of colour blindness.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
# Colour and line of the kinds of code, the same in every figure.
ORIGINAL = {"color": BLACK, "linestyle": "-"}
VQ = {"color": BLUE, "linestyle": "--"}
DICTIONARY = {"color": RED, "linestyle": ":"}
_MOST_LINES, _LONGEST_NAME = 4, 50  # lines of a title, characters of a name
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW)


def as_rgb(images):
    """Returns images `(..., C)` with three channels; a gray one is repeated."""
    return np.repeat(images, 3, axis=-1) if np.shape(images)[-1] == 1 else images


def new_figure(width=8.0, height=4.0):
    """Returns an empty matplotlib `Figure`, inches; at 150 dots an inch readable at README width.

    Without pyplot, so it has no global state and needs no display.
    """
    from matplotlib.figure import Figure  # slow to import, needed once per run

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def heading(figure, title):
    """Draws text with any characters above a figure, in lines that fit its width.

    A long title is cut in its middle, and the figure grows by its lines.
    """
    width, height = figure.get_size_inches()
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in title)
    columns = int((7 if wide else 12) * width)
    text = shortened(" ".join(title.split()), _MOST_LINES * columns)
    lines = textwrap.wrap(text, columns, break_on_hyphens=False)
    figure.set_size_inches(width, height + 0.15 * max(len(lines) - 1, 0))
    figure.suptitle("\n".join(lines), fontsize=9, parse_math=False)


def shortened(text, most=_LONGEST_NAME):
    """Returns printable text of at most `most` characters, cut in its middle if it is longer."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2 - 2]} ... {text[3 - most // 2 :]}"


def legend(owner, *entries, **options):
    """Adds a legend to axes or a figure; its names may have any characters."""
    for text in owner.legend(*entries, fontsize=8, frameon=False, **options).get_texts():
        text.set(text=shortened(text.get_text()), parse_math=False)


def label(axes, **texts):
    """Sets `title`, `xlabel` or `ylabel` of axes; the text may have any characters."""
    for name, text in texts.items():
        getattr(axes, f"set_{name}")(printable(text), fontsize=9, parse_math=False)


def row_label(axes, text):
    """Sets the name of a row of pictures, to its left, in lines of at most 16 characters."""
    lines = textwrap.wrap(shortened(text), 16, break_on_hyphens=False)
    axes.set_ylabel(
        "\n".join(lines), fontsize=8, rotation=0, ha="right", va="center", parse_math=False
    )


def clean(axes, *, xlabel="", ylabel="", title="", grid=True):
    """Labels axes and removes the frame above and to the right."""
    label(axes, xlabel=xlabel, ylabel=ylabel, title=title)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.set_axisbelow(True)


def picture(axes, image, *, title="", **options):
    """Shows an image, or a map of numbers, with no ticks and no frame; returns what imshow does."""
    shown = axes.imshow(
        as_rgb(image) if np.ndim(image) == 3 else image, interpolation="nearest", **options
    )
    label(axes, title=title)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return shown
