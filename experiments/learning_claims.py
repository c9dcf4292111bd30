"""Checks the claims of the reference system's README on dictionary learning."""

import numpy as np

from experiments.learning_curves import at_seconds, early, holds, percent, reached
from experiments.learning_figures import APPROXIMATE, EXACT, GRADIENT, PARALLEL


def report(out, found):
    """Adds the verdict on each claim of the reference system's README."""
    out.heading("What the reference system's README says")
    for claim in (
        ksvd_claim(found["methods"]), weight_claim(found["weights"]),
        iteration_claim(found["iterations"]),
    ):  # fmt: skip
        quoted, *verdicts = claim
        out.text(quoted)
        out.text("\n".join(f"- {verdict}" for verdict in verdicts))


def ksvd_claim(group):
    """K-SVD converges faster than gradient: to the error that gradient ends at."""
    gradient = group[GRADIENT]
    levels, steps, total = gradient.quality[:, -1], gradient.step[-1], gradient.seconds[:, -1]
    yield (
        'Convergence of K-SVD beside gradient: "Often faster for small problems". Gradient ends at '
        f"{percent(levels)}% after {steps} steps and {np.mean(total):.2f} s."
    )
    for name in (EXACT, APPROXIMATE, PARALLEL):
        there, when = (reached(group[name], levels, axis=axis) for axis in ("step", "seconds"))
        by_step, by_second = holds(there < steps), holds(when < total)
        where = (
            f"is there after {np.mean(there):.0f} steps and {np.mean(when):.2f} s"
            if np.isfinite(there).all()
            else f"is still at {percent(group[name].quality[:, -1])}% after all steps"
        )
        yield f"{name} {where}: per step it {by_step}, per second it {by_second}."


def weight_claim(group):
    """A larger dictionary_weight is faster than 1."""
    (_, low), *others = group
    base, first = group[GRADIENT, low], early(group[GRADIENT, low])
    yield (
        '`dictionary_weight`, "recommended: 2.0-10.0": "Higher values → stronger gradients → '
        'faster dictionary adaptation". '
        f"At weight {low:g} the error is {percent(base.quality[:, first])}% after "
        f"{base.step[first]} steps and {percent(base.quality[:, -1])}% after {base.step[-1]}. "
        "Here the weight multiplies the learning rate; as a factor of the loss alone, Adam would "
        "ignore it."
    )
    for name in others:
        each = ", ".join(
            f"{percent(group[name].quality[:, i])}% after {base.step[i]} "
            f"(faster {holds(group[name].quality[:, i] < base.quality[:, i])})"
            for i in (first, -1)
        )
        yield f"At {name[1]:g} it is {each}."


def iteration_claim(group):
    """More sweeps an update raise the quality."""
    yield '`ksvd_iterations`: "1-2 iterations for speed", "3-5 iterations for quality".'
    for update in dict.fromkeys(update for update, _ in group):
        (once, base), *others = ((n, c) for (name, n), c in group.items() if name == update)
        seconds = float(np.mean(base.seconds[:, -1]))
        for n, c in others:
            same_time = at_seconds(c, seconds)
            by_step = holds(c.quality[:, -1] < base.quality[:, -1])
            by_second = holds(same_time < base.quality[:, -1])
            yield (
                f"{update}: {n} sweeps leave {percent(c.quality[:, -1])}% after {c.step[-1]} "
                f"steps, {once} leaves {percent(base.quality[:, -1])}%: per step it "
                f"{by_step}. After the same {seconds:.1f} s {n} sweeps leave "
                f"{percent(same_time)}%: per second it {by_second}."
            )
