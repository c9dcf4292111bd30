"""How a dictionary learns: by gradient, by online updates, by K-SVD; against steps and seconds.

    python -m experiments.dictionary_learning [--size=small] [--workdir=...] [--images=celeb_a]

First the dictionary alone: `DictionaryLearning` as it stands in an autoencoder, its latents a
stream of 8x8 gray patches of the training images without their means. Then the same updates in
autoencoders. What is compared learns in turn, a step each (`dictionary_learners`).
"""

import functools
from typing import NamedTuple

import numpy as np
from absl import app

from experiments import learning_claims, results
from experiments.dictionary_learners import learn_latents, learn_patches, stacked
from experiments.learning_curves import (
    at_seconds,
    best_of,
    early,
    least_total,
    percent,
    reached,
)
from experiments.learning_figures import (
    APPROXIMATE,
    EXACT,
    GRADIENT,
    MEMORY,
    NO_MEMORY,
    ONLINE,
    PARALLEL,
    PARAMETERS,
    SLOW,
    curve_figure,
    parameter_figure,
)
from experiments.timing import machine

# The weight of configs/dlvae_*.py; all else is what the models have by default.
METHODS = {
    GRADIENT: {"dictionary_update": "gradient", "dictionary_weight": 5.0},
    ONLINE: {"dictionary_update": "online"},
    EXACT: {"dictionary_update": "ksvd", "ksvd_method": "exact"},
    APPROXIMATE: {"dictionary_update": "ksvd", "ksvd_method": "approximate"},
    PARALLEL: {"dictionary_update": "ksvd", "ksvd_method": "parallel"},
}
IN_AUTOENCODERS = METHODS | {SLOW: {"dictionary_update": "gradient", "dictionary_weight": 1.0}}


class Size(NamedTuple):
    """How large the study is.

    Attributes:
      num_embeddings, sparsity_level: atoms, and atoms a patch.
      batch, held_out: patches a step, and test patches.
      steps: of learning; `sweep_steps` where `ksvd_iterations` varies, as sweeps are slow.
      seeds: of everything.
      weights, iterations, memories: values of `dictionary_weight`, `ksvd_iterations` and
        `dictionary_decay`.
      autoencoders: names in `IN_AUTOENCODERS`.
      run_steps, num_hiddens, test_every: of their training, their channels, and of so many test
        windows one is looked at.
    """

    num_embeddings: int = 512
    sparsity_level: int = 8
    batch: int = 2048
    held_out: int = 8192
    steps: int = 150
    sweep_steps: int = 25
    seeds: int = 3
    weights: tuple = (1.0, 2.0, 5.0, 10.0)
    iterations: tuple = (1, 2, 5)
    memories: tuple = (0.0, 0.5, 0.9, 0.99)
    autoencoders: tuple = (GRADIENT, SLOW, ONLINE, EXACT, APPROXIMATE)
    run_steps: int = 200
    num_hiddens: int = 32
    test_every: int = 4


SIZES = {
    "small": Size(
        num_embeddings=256, batch=1024, held_out=4096, steps=60, sweep_steps=20, seeds=1,
        weights=(1.0, 5.0), iterations=(1, 5), memories=(0.0, 0.9),
        autoencoders=(GRADIENT, APPROXIMATE), run_steps=40, num_hiddens=16, test_every=16,
    ),
    "full": Size(),
}  # fmt: skip


def variants(size):
    """Returns the comparisons: name -> (steps, settings of each by name)."""
    gradient, exact = METHODS[GRADIENT], METHODS[EXACT]
    return {
        "methods": (size.steps, METHODS),
        "weights": (
            size.steps,
            {(GRADIENT, w): {**gradient, "dictionary_weight": w} for w in size.weights},
        ),
        "iterations": (
            size.sweep_steps,
            {
                (f"{EXACT}, {name}", n): {**exact, **memory, "ksvd_iterations": n}
                for name, memory in ((MEMORY, {}), (NO_MEMORY, {"dictionary_decay": 0.0}))
                for n in size.iterations
            },
        ),
        "memories": (
            size.steps,
            {
                (name, decay): {**METHODS[name], "dictionary_decay": decay}
                for name in (ONLINE, APPROXIMATE)
                for decay in size.memories
            },
        ),
    }


def compute(out, size):
    """Returns name of the comparison -> variant -> `Curves`; "autoencoders" is one more."""
    source, found = out.images, {}
    alone = {f: getattr(size, f) for f in ("num_embeddings", "sparsity_level", "batch", "held_out")}
    alone |= machine()
    for name, (steps, settings) in variants(size).items():
        pairs = list(settings.items())
        points = [
            out.point(
                name, {**alone, "images": source, "variants": pairs, "steps": steps, "seed": seed},
                functools.partial(learn_patches, size, source, pairs, steps, seed),
            )
            for seed in range(size.seeds)
        ]  # fmt: skip
        found[name] = stacked(points, settings)
    runs = {f: getattr(size, f) for f in ("run_steps", "num_hiddens", "test_every")} | machine()
    pairs = [(name, IN_AUTOENCODERS[name]) for name in size.autoencoders]
    points = [
        out.point(
            "autoencoders", {**runs, "variants": pairs, "seed": seed},
            functools.partial(learn_latents, size, pairs, seed),
        )
        for seed in range(size.seeds)
    ]  # fmt: skip
    found["autoencoders"] = stacked(points, size.autoencoders)
    return found


# The report.


def run(out, size):
    """Computes every point and lays out the report."""
    found = compute(out, size)
    report_methods(out, size, found["methods"])
    learning_claims.report(out, found)
    report_parameters(out, size, found)
    report_autoencoders(out, size, found["autoencoders"])
    rows = [
        [group, *([name, ""] if isinstance(name, str) else name), seed, step,
         *(float(getattr(curves, field)[seed, i]) for field in
           ("seconds", "quality", "used", "mean_coherence", "max_coherence"))]
        for group, each in found.items()
        for name, curves in each.items()
        for seed in range(size.seeds)
        for i, step in enumerate(curves.step)
    ]  # fmt: skip
    header = ["comparison", "update", "value", "seed", "step", "seconds", "quality", "used"]
    out.csv("curves", [*header, "mean coherence", "max coherence"], rows)


def report_methods(out, size, group):
    """Adds the quality of the updates, per step and per second."""
    any_curves, budget = group[GRADIENT], least_total(group.values())
    first, steps = early(any_curves), int(any_curves.step[-1])
    last = {name: c.quality[:, -1] for name, c in group.items()}
    levels = np.max(list(last.values()), 0)
    seconds = {name: reached(c, levels, axis="seconds") for name, c in group.items()}
    at_budget = {name: at_seconds(c, budget) for name, c in group.items()}
    at_first = {name: c.quality[:, first] for name, c in group.items()}
    out.heading("The dictionary alone: which update is best")
    out.text(
        f"- **Per step**, error after {any_curves.step[first]} of {steps} steps is least with "
        f"{best_of(at_first)}, after all of them with {best_of(last)}.\n"
        f"- **Per second**, error after {budget:.2f} s, what the cheapest takes for all its steps, "
        f"is least with {best_of(at_budget)}. The error that the worst ends at is reached soonest "
        f"by {best_of(seconds, form='after {:.2f} s', scale=1)}.\n"
        f"- A step takes {milliseconds_of(group)}, coding included.\n"
        f"- Atoms used by held-out patches: {range_of(group, 'used')}; mean coherence "
        f"{range_of(group, 'mean_coherence')}; maximal {range_of(group, 'max_coherence')}."
    )
    out.figure(
        "methods",
        curve_figure(group, scale=100, ylabel="held-out error, % of energy", log=True),
        caption=f"{size.held_out:,} held-out patches. {size.num_embeddings} atoms, "
        f"{size.sparsity_level} a patch, {size.batch} patches a step, all from one dictionary of "
        f"patches, an update every step. {bands(size)}",
    )
    rows = [
        [
            name, float(np.mean(c.milliseconds)), percent(at_first[name]), percent(last[name]),
            percent(at_budget[name]), results.spread(reached(c, levels, axis="step"), "{:.0f}"),
            results.spread(seconds[name]),
        ]
        for name, c in group.items()
    ]  # fmt: skip
    out.table(
        "methods",
        ["update", "ms a step", f"error at step {any_curves.step[first]}, %",
         f"at step {steps}, %", f"after {budget:.2f} s, %", "steps to the worst's last error",
         "seconds to it"],
        rows, caption="Error: squared error of held-out patches, % of their energy.",
    )  # fmt: skip
    out.table(
        "dictionaries",
        ["update", "atoms used, %", "mean coherence", "max coherence"],
        [
            [name, percent(c.used[:, -1]), *(results.spread(x[:, -1], "{:.3f}") for x in
                                             (c.mean_coherence, c.max_coherence))]
            for name, c in group.items()
        ],
        caption="The dictionaries at the end. Coherence: an atom's largest |cosine| with another.",
    )  # fmt: skip
    out.text(
        f"*Gradient* is Adam with laser_jax's schedule, warm-up and a cosine to 0 over the {steps} "
        f"steps, its peak rate multiplied by `dictionary_weight` "
        f"{METHODS[GRADIENT]['dictionary_weight']:g}; being annealed, it gains most towards its "
        "end, wherever that is set. Online and K-SVD remember earlier batches (`dictionary_decay` "
        "0.9) and have no schedule. Patches have their mean taken away, which a decoder would get "
        "separately. Each step was timed by itself, after compilation, the updates in turn."
    )


def milliseconds_of(group):
    return ", ".join(f"{np.mean(c.milliseconds):.1f} ms ({name})" for name, c in group.items())


def range_of(group, field):
    values = [np.mean(getattr(c, field)[:, -1]) for c in group.values()]
    return f"{min(values):.3f} to {max(values):.3f}"


def bands(size):
    if size.seeds == 1:
        return "One seed."
    return f"Bands: one standard deviation over {size.seeds} seeds."


def report_parameters(out, size, found):
    """Adds the effect of the parameters."""
    out.heading("What the parameters do")
    out.figure(
        "parameters", parameter_figure(found),
        caption="Held-out error against `dictionary_weight` (gradient), `ksvd_iterations` (K-SVD, "
        "exact) and `dictionary_decay` (online, and K-SVD, approximate). "
        + ("One seed." if size.seeds == 1 else
           f"Whiskers: one standard deviation over {size.seeds} seeds."),
    )  # fmt: skip
    rows = []
    for name, parameter in PARAMETERS.items():
        group = found[name]
        for (update, value), c in group.items():
            budget = least_total(x for (other, _), x in group.items() if other == update)
            rows.append([
                parameter, f"{value:g}", update, float(np.mean(c.milliseconds)), int(c.step[-1]),
                percent(c.quality[:, early(c)]), percent(c.quality[:, -1]),
                percent(at_seconds(c, budget)), percent(c.used[:, -1]),
                results.spread(c.mean_coherence[:, -1], "{:.3f}"),
            ])  # fmt: skip
    out.table(
        "parameters",
        ["parameter", "value", "update", "ms a step", "steps", "error at a tenth of them, %",
         "at the end, %", "at equal seconds, %", "atoms used, %", "mean coherence"],
        rows,
        caption="Equal seconds: those that the cheapest value of the update took for all steps.",
    )  # fmt: skip
    memories = found["memories"]
    best = []
    for update in dict.fromkeys(update for update, _ in memories):
        errors = {f"{v:g}": c.quality[:, -1] for (n, v), c in memories.items() if n == update}
        best.append(f"- The best memory for {update} is `dictionary_decay` {best_of(errors)}.")
    out.text("\n".join(best))


def report_autoencoders(out, size, group):
    """Adds the quality of the updates inside autoencoders."""
    budget = least_total(group.values())
    last = {name: c.quality[:, -1] for name, c in group.items()}
    at_budget = {name: at_seconds(c, budget) for name, c in group.items()}
    worst, best = (f([np.mean(x) for x in last.values()]) for f in (min, max))
    out.heading("Inside autoencoders")
    decibels = {"most": True, "form": "{:.2f} dB", "scale": 1}
    out.text(
        f"- After {size.run_steps} steps PSNR is highest with {best_of(last, **decibels)}; from "
        f"the worst to the best it is {best - worst:.2f} dB.\n"
        f"- After {budget:.1f} s, what the cheapest takes for all its steps, it is highest with "
        f"{best_of(at_budget, **decibels)}.\n"
        f"- A step takes {milliseconds_of(group)}, the network included."
    )
    out.figure(
        "autoencoders",
        curve_figure(group, scale=1, ylabel="PSNR of test windows, dB", log=False),
        caption="`configs/ksvd_photos.py` (512 atoms, 8 a latent; online and K-SVD update every "
        f"fourth step) with {size.num_hiddens} hidden units and {size.run_steps} steps of batch "
        f"64; one of {size.test_every} test windows of `photo_patches`. {bands(size)}",
    )
    out.table(
        "autoencoders",
        ["update", "ms a step", "PSNR at the end, dB", f"after {budget:.1f} s, dB",
         "atoms used, %", "mean coherence", "max coherence"],
        [
            [
                name, float(np.mean(c.milliseconds)), results.spread(last[name]),
                results.spread(at_budget[name]),
                percent(c.used[:, -1]), results.spread(c.mean_coherence[:, -1], "{:.3f}"),
                results.spread(c.max_coherence[:, -1], "{:.3f}"),
            ]
            for name, c in group.items()
        ],
        caption="Milliseconds of all that a step of training is, the mean over all steps.",
    )  # fmt: skip


if __name__ == "__main__":
    title = "Dictionaries by gradient, online and K-SVD: error against steps and seconds"
    app.run(results.program("dictionary_learning", title, run, SIZES))
