"""How every figure looks: its size, its fonts, and colours that the colour-blind tell apart."""

import numpy as np

# Okabe and Ito, Color universal design, 2008: told apart under every common colour blindness.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
# Colour and line of the kinds of code, the same in every figure.
ORIGINAL = {"color": BLACK, "linestyle": "-"}
VQ = {"color": BLUE, "linestyle": "--"}
DICTIONARY = {"color": RED, "linestyle": ":"}
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW)


def as_rgb(images):
    """Returns images `(..., C)` with three channels; a gray one is repeated."""
    return np.repeat(images, 3, axis=-1) if np.shape(images)[-1] == 1 else images


def new_figure(width=8.0, height=4.0):
    """Returns an empty matplotlib `Figure`, inches; at 150 dots an inch readable at README width.

    No pyplot: a figure belongs to nobody else and needs no display.
    """
    from matplotlib.figure import Figure  # slow to import, wanted once a run

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def clean(axes, *, xlabel="", ylabel="", title="", grid=True):
    """Labels axes and takes away what carries nothing: the frame above and to the right."""
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.set_title(title, fontsize=9)
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
    axes.set_title(title, fontsize=9)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return shown
