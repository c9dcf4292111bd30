"""Training curves, read back from TensorBoard's files."""

import numpy as np

from laser_jax.figures import style


def read_scalars(workdir):
    """Returns tag -> (steps, values) of a run's TensorBoard files, steps rising.

    A step written twice, as after a resume, counts once: the last value is used.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(
        str(workdir), size_guidance={"tensors": 0}, purge_orphaned_data=False
    ).Reload()
    found = {}
    for tag in events.Tags()["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name != "scalars":
            continue
        written = sorted(events.Tensors(tag), key=lambda event: event.wall_time)
        values = {event.step: float(make_ndarray(event.tensor_proto)) for event in written}
        steps = sorted(values)
        found[tag] = np.array(steps), np.array([values[step] for step in steps])
    return found


def smoothed(values, weight=0.6):
    """Returns a bias-corrected moving average: `weight` is what is kept at each point."""
    mean, found = 0.0, []
    for i, value in enumerate(values, 1):
        mean = weight * mean + (1 - weight) * value
        found.append(mean / (1 - weight**i))
    return np.array(found)


def curve_figure(runs, tags):
    """Returns a figure of training curves: a panel a tag, a colour a run.

    Faint lines are the logged values, strong lines their moving average. Validation has few values,
    so its lines have points; so has a line of one or two values.

    Args:
      runs: name -> tag -> (steps, values).
      tags: those to draw, in order; one that no run has is left out.
    """
    tags = [tag for tag in tags if any(tag in scalars for scalars in runs.values())]
    rows = -(-len(tags) // 2)
    figure = style.new_figure(8, 0.6 + 2.1 * rows)
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, tag in zip(panels, tags, strict=False):
        for color, scalars in zip(style.CYCLE, runs.values(), strict=False):
            if tag not in scalars:
                continue
            steps, values = scalars[tag]
            if tag.startswith("val/"):
                axes.plot(steps, values, color=color, marker="o", markersize=3, linewidth=1.2)
            else:
                axes.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
                marker = "o" if len(values) < 3 else None  # a line needs two points
                line = {"color": color, "linewidth": 1.4, "marker": marker, "markersize": 3}
                axes.plot(steps, smoothed(values), **line)
        style.clean(axes, title=tag)
    for axes in panels[len(tags) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(tags) - 2) : len(tags)]:
        axes.set_xlabel("step", fontsize=9)
    lines = [
        panels[0].plot([], [], color=color)[0] for color, _ in zip(style.CYCLE, runs, strict=False)
    ]
    style.legend(figure, lines, list(runs), loc="outside upper center", ncols=4)
    return figure
