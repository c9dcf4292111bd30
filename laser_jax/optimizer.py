"""AdamW for the network, Adam for the atoms: two groups that share nothing but the schedule.

The atoms get no weight decay, which would shrink them, and no part in the network's
gradient clipping. `dictionary_weight` multiplies their learning rate: the straight-through
estimator leaves the dictionary loss as their only gradient, and Adam ignores its factor.
"""

from typing import NamedTuple

import jax
import optax


class Optimizer(NamedTuple):
    """The optimizers of the network and of the atoms, and the learning rate's schedule."""

    network: optax.GradientTransformation
    atoms: optax.GradientTransformation | None
    schedule: optax.Schedule

    def init(self, params, atoms):
        """Returns the state of both groups."""
        return {
            "params": self.network.init(params),
            "dictionary": self.atoms.init(atoms) if self.atoms else (),
        }

    def update(self, grads, opt_state, params, atoms):
        """Returns `(params, atoms, opt_state)` after a step; `grads` is a pair like them."""
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


def build_optimizer(config, *, learns_by_gradient):
    """Returns the `Optimizer` that `config.optimizer` describes.

    Args:
      config: the whole config.
      learns_by_gradient: whether the atoms are optimized too.

    Raises:
      ValueError: if the warm-up is longer than the run.
    """
    options, steps = config.optimizer, config.num_train_steps
    if not 0 <= options.warmup_steps < steps:
        raise ValueError(
            f"optimizer.warmup_steps must be in [0, {steps}) (num_train_steps), "
            f"got {options.warmup_steps}."
        )
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, options.warmup_steps, steps
    )
    network = optax.chain(
        optax.clip_by_global_norm(options.grad_clip_norm),
        optax.adamw(schedule, b1=options.b1, b2=options.b2, weight_decay=options.weight_decay),
    )
    weight = config.model.dictionary_weight if config.model.bottleneck in ("dl", "ksvd") else 1.0
    atoms = optax.adam(lambda step: weight * schedule(step), b1=options.b1, b2=options.b2)
    return Optimizer(network, atoms if learns_by_gradient else None, schedule)


def update_average(average, new, decay):
    """Returns the exponential moving average of a pytree."""
    return jax.tree.map(lambda a, x: decay * a + (1 - decay) * x, average, new)
