"""Numbers from learning curves: quality after a time, time to a quality, and the best method."""

import numpy as np

from experiments import results


def early(curves):
    """Returns which look is nearest to a tenth of the steps."""
    return int(np.argmin(np.abs(curves.step - curves.step[-1] / 10)))


def least_total(group):
    """Returns the seconds that the cheapest of a group took for all its steps."""
    return min(float(np.mean(curves.seconds[:, -1])) for curves in group)


def at_seconds(curves, seconds):
    """Returns each seed's quality after so many seconds, linear in their logarithm; nan beyond
    the ends."""
    return np.array([
        np.interp(np.log(seconds), np.log(x), y, left=np.nan, right=y[-1])
        for x, y in zip(curves.seconds, curves.quality, strict=True)
    ])  # fmt: skip


def reached(curves, levels, *, axis):
    """Returns where each seed's error first falls to its level; nan where it never does.

    Args:
      curves: `Curves` of errors.
      levels: `(seeds,)`.
      axis: "step" or "seconds"; between two looks linear in its logarithm.
    """
    places = np.broadcast_to(getattr(curves, axis), curves.quality.shape)
    found = []
    for x, y, level in zip(places, curves.quality, levels, strict=True):
        below = np.flatnonzero(y <= level)
        if not len(below) or below[0] == 0:
            found.append(x[0] if len(below) else np.nan)
            continue
        i = below[0]
        found.append(np.exp(np.interp(level, y[[i, i - 1]], np.log(x[[i, i - 1]]))))
    return np.array(found)


def wins(name, values, *, most=False):
    """Returns in how many seeds a name has the least, or greatest, of the values by name."""
    table = np.array(list(values.values()))
    best = np.nanargmax(table, 0) if most else np.nanargmin(table, 0)
    return int(np.sum(best == list(values).index(name)))


def best_of(values, *, most=False, form="{:.2f}%", scale=100):
    """Returns text: which has the best mean, its value, and in how many seeds it is best."""
    means = {name: np.mean(x) for name, x in values.items() if np.isfinite(x).all()}
    name = (max if most else min)(means, key=means.get)
    seeds = len(values[name])
    kept = {n: values[n] for n in means}
    value = form.format(scale * means[name])
    return f"{name} ({value}; best in {wins(name, kept, most=most)} of {seeds} seeds)"


def percent(values):
    return results.spread(values, scale=100)


def holds(flags):
    """Returns a verdict on a fact that was checked for every seed."""
    if all(flags):
        return "holds"
    return f"holds in {sum(flags)} of {len(flags)} seeds" if any(flags) else "does not hold"
