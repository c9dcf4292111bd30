"""AdamW for the network, Adam for the atoms: two groups that share only the schedule.

The atoms have no weight decay, which would shrink them, and no part in the gradient clipping of
the network. `dictionary_weight` multiplies their learning rate: with the straight-through
estimator the dictionary loss is their only gradient, and Adam ignores its constant factor.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Optimizer(NamedTuple):
    """The optimizers of the network and of the atoms, and the schedule of the learning rate."""

    network: optax.GradientTransformation
    atoms: optax.GradientTransformation | None
    schedule: optax.Schedule

    def init(self, params, atoms):
        """Returns the initial state of both groups."""
        return {
            "params": self.network.init(params),
            "dictionary": self.atoms.init(atoms) if self.atoms else (),
        }

    def update(self, grads, opt_state, params, atoms):
        """Returns `(params, atoms, opt_state)` after a step; `grads` is a pair of gradients."""
        params_grads, atoms_grads = grads
        opt_state = dict(opt_state)
        updates, opt_state["params"] = self.network.update(
            params_grads, opt_state["params"], params
        )
        params = optax.apply_updates(params, updates)
        if self.atoms:
            updates, opt_state["dictionary"] = self.atoms.update(
                atoms_grads, opt_state["dictionary"]
            )
            atoms = optax.apply_updates(atoms, updates)
        return params, atoms, opt_state

    def reset_moments(self, opt_state, replaced):
        """Returns the state with Adam's moments of the `replaced` atoms, bool `(m,)`, set to 0."""
        reset = lambda moment: jnp.where(replaced[:, None], 0, moment)  # noqa: E731
        dictionary = optax.tree_utils.tree_map_params(self.atoms, reset, opt_state["dictionary"])
        return {**opt_state, "dictionary": dictionary}


def build_optimizer(config, bottleneck, lengths=None):
    """Returns the `Optimizer` of `config.optimizer`.

    The learning rate rises linearly over `warmup_steps` and then decays to 0 at the end of the
    run, as a cosine. If `num_train_steps` changes at some step, the remaining curve is stretched
    or compressed over the steps up to the new end, so that the rate has no jump and ends at 0.
    If the run had ended already, the full curve, with warm-up, is repeated over the added steps.

    Args:
      config: the whole config.
      bottleneck: defines whether its atoms are optimized, and their `learning_rate_scale`; None:
        there are no atoms.
      lengths: each `num_train_steps` of the run and the step it was set at, from
        `workdir.planned_lengths`; None: `config.num_train_steps` at step 0.

    Raises:
      ValueError: if the warm-up is longer than the run.
    """
    options = config.optimizer
    segments = _segments(lengths or ((0, config.num_train_steps),))
    steps = segments[0].end
    if not 0 <= options.warmup_steps < steps:
        raise ValueError(
            f"optimizer.warmup_steps must be in [0, {steps}) (num_train_steps), "
            f"got {options.warmup_steps}."
        )
    schedule = _stretched(
        optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, options.warmup_steps, steps),
        segments,
    )
    network = optax.chain(
        optax.clip_by_global_norm(options.grad_clip_norm),
        optax.adamw(schedule, b1=options.b1, b2=options.b2, weight_decay=options.weight_decay),
    )
    atoms = None
    if bottleneck is not None and bottleneck.learns_by_gradient:
        scale = bottleneck.learning_rate_scale
        atoms = optax.adam(lambda step: scale * schedule(step), b1=options.b1, b2=options.b2)
    return Optimizer(network, atoms, schedule)


class _Segment(NamedTuple):
    """A part of the run: from step `start` at `position` of the first schedule to step `end`."""

    start: int
    position: float
    end: int
    speed: float  # steps of the first schedule per step of the run


def _segments(lengths):
    segments, total = [], lengths[0][1]
    for step, end in lengths:
        segments = [segment for segment in segments if segment.start < step]
        if not segments:
            total, position = end, 0.0
        else:
            last = segments[-1]
            if end <= step or end == last.end:  # it ends immediately, or at the same step as before
                continue
            position = last.position + (step - last.start) * last.speed
            position = position if step < last.end else 0.0  # it had ended: repeat the schedule
        segments.append(_Segment(step, position, end, (total - position) / (end - step)))
    return segments


def _stretched(schedule, segments):
    """Returns the schedule of all segments, each at its own speed."""
    if len(segments) == 1:
        return schedule
    starts, positions, _, speeds = (np.array(column) for column in zip(*segments, strict=True))

    def stretched(count):
        i = jnp.searchsorted(starts, count, side="right") - 1
        start, position, speed = (jnp.asarray(x, float)[i] for x in (starts, positions, speeds))
        return schedule(position + (count - start) * speed)

    return stretched


def update_average(average, new, decay):
    """Returns the exponential moving average of a pytree."""
    return jax.tree.map(lambda a, x: (decay * a + (1 - decay) * x).astype(a.dtype), average, new)


def average_decay(ema_decay, step):
    """Returns the decay of a step's moving average; the first averages have a short memory."""
    return jnp.minimum(ema_decay, (1 + step) / (10 + step))
