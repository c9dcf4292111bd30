"""Figures of how dictionaries learn, and the names of the updates in them."""

import numpy as np

from experiments.learning_curves import at_seconds, early, least_total
from laser_jax.figures import style

GRADIENT, ONLINE, SLOW = "gradient", "online", "gradient, weight 1"
EXACT, APPROXIMATE, PARALLEL = "K-SVD, exact", "K-SVD, approximate", "K-SVD, parallel"
LOOKS = {
    GRADIENT: {"color": style.BLUE, "linestyle": "-"},
    ONLINE: {"color": style.GREEN, "linestyle": "--"},
    EXACT: {"color": style.RED, "linestyle": ":"},
    APPROXIMATE: {"color": style.PURPLE, "linestyle": "-."},
    PARALLEL: {"color": style.ORANGE, "linestyle": (0, (6, 2))},
    SLOW: {"color": style.SKY, "linestyle": (0, (1, 1))},
}
MEMORY, NO_MEMORY = "default memory", "no memory"
COLORS = {name: look["color"] for name, look in LOOKS.items()}
COLORS |= {f"{EXACT}, {MEMORY}": style.RED, f"{EXACT}, {NO_MEMORY}": style.ORANGE}
PARAMETERS = {
    "weights": "dictionary_weight",
    "iterations": "ksvd_iterations",
    "memories": "dictionary_decay",
}


def curve_figure(group, *, scale, ylabel, log):
    """Returns a figure of quality against steps and against seconds, side by side."""
    figure = style.new_figure(8, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for name, curves in group.items():
        mean, deviation = (scale * f(curves.quality, 0) for f in (np.mean, np.std))
        for axes, x in zip(panels, (curves.step, np.mean(curves.seconds, 0)), strict=True):
            axes.plot(x, mean, **LOOKS[name], linewidth=1.6, marker="o", markersize=2.5, label=name)
            axes.fill_between(
                x, mean - deviation, mean + deviation, color=LOOKS[name]["color"], alpha=0.2, lw=0
            )
    style.clean(panels[0], xlabel="steps", ylabel=ylabel)
    style.clean(panels[1], xlabel="seconds of learning")
    if log:
        for axes in panels:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8,
        frameon=False,
    )  # fmt: skip
    return figure


def parameter_figure(found):
    """Returns a figure of held-out error against each parameter's values, a panel each."""
    figure = style.new_figure(8, 3.8)
    panels = figure.subplots(1, 3)
    for axes, (name, parameter) in zip(panels, PARAMETERS.items(), strict=True):
        group = found[name]
        for update in dict.fromkeys(update for update, _ in group):
            values = {v: c for (other, v), c in group.items() if other == update}
            some, budget = next(iter(values.values())), least_total(values.values())
            then = [c.quality[:, early(c)] for c in values.values()]
            when = f"step {some.step[early(some)]}"
            if name == "iterations":  # what more sweeps cost is the question
                then = [at_seconds(c, budget) for c in values.values()]
                when = f"{budget:.1f} s"
            last = [c.quality[:, -1] for c in values.values()]
            short, color = update.removeprefix(f"{EXACT}, "), COLORS[update]
            for errors, line, fill, label in (
                (then, "--", "white", when), (last, "-", color, f"step {some.step[-1]}"),
            ):  # fmt: skip
                table, places = 100 * np.array(errors), range(len(errors))
                axes.errorbar(
                    places, table.mean(-1), table.std(-1), color=color, fmt="none", capsize=2
                )
                axes.plot(
                    places, table.mean(-1), color=color, linestyle=line, marker="o", markersize=4,
                    markerfacecolor=fill, linewidth=1.4, label=f"{short}, {label}",
                )  # fmt: skip
        axes.set_xticks(range(len(values)), [f"{v:g}" for v in values])
        style.clean(axes, xlabel=parameter)
        axes.legend(fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    panels[0].set_ylabel("held-out error, % of energy", fontsize=9)
    return figure
