"""The state of a training run: arrays only, so it can be jitted, sharded and stored."""

import functools
import logging
import math
from typing import Any

import flax
import jax
import jax.numpy as jnp

from laser_jax import compiler
from laser_jax.images import to_network
from laser_jax.ranges import as_size
from laser_jax.sharding import put_batch, replicated

log = logging.getLogger("laser_jax")


@flax.struct.dataclass
class TrainState:
    """Everything needed to resume a run; the batch of a step depends on seed and step alone.

    Attributes:
      step: int32 scalar, the number of completed steps.
      params: the network's parameters.
      dictionary: the collection of the bottleneck: atoms, usage, statistics of their update. Empty
        for a prior.
      opt_state: the states of the optimizers of `params` and of the `dictionary`.
      ema_params: moving averages of `params` and, if the optimizer updates them, of the `atoms`;
        empty without EMA.
      extra: state of further losses: of the `discriminator`, if there is one.
    """

    step: jax.Array
    params: Any
    dictionary: Any
    opt_state: Any
    ema_params: Any
    extra: Any

    def variables(self):
        """Returns the variables of the model for training."""
        return {"params": self.params, "dictionary": {"bottleneck": self.dictionary}}

    def eval_params(self):
        """Returns the parameters for evaluation: the moving averages if there are any."""
        return self.ema_params.get("params", self.params)

    def eval_variables(self):
        """Returns the variables for evaluation: the moving averages if there are any."""
        params = self.eval_params()
        atoms = self.ema_params.get("atoms", self.dictionary["atoms"])
        dictionary = {**self.dictionary, "atoms": atoms}
        return {"params": params, "dictionary": {"bottleneck": dictionary}}


def initial_state(setup):
    """Returns the state at step 0 on every device, its dictionary still random."""
    init = functools.partial(_init_state, setup)
    return jax.jit(init, out_shardings=replicated(setup.mesh))()


def abstract_state(setup):
    """Returns the shapes, dtypes and shardings of a state, to restore a checkpoint onto."""
    everywhere = replicated(setup.mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        jax.eval_shape(functools.partial(_init_state, setup)),
    )


def with_discriminator(setup, state):
    """Returns a state with a new discriminator, if the run has one and the state does not.

    Raises:
      ValueError: if its term acts before it has learned for its warm-up.
    """
    if state.extra or not abstract_state(setup).extra:
        return state
    options, step = setup.config.adversarial, int(state.step)
    if options.start_step <= step + options.warmup_steps:
        raise ValueError(
            f"the discriminator is new at step {step}: adversarial.start_step must be above that "
            f"step + adversarial.warmup_steps = {step + options.warmup_steps}, got "
            f"{options.start_step}."
        )
    new = jax.jit(lambda: _init_state(setup).extra, out_shardings=replicated(setup.mesh))
    log.info("a discriminator is added after step %d", step)
    return state.replace(extra=new())


def init_dictionary(setup, state, batches):
    """Returns the state with a dictionary taken from the latents of the first batches.

    It takes as many batches as give four signals per atom, at most 32.

    Args:
      setup: the `Setup`.
      state: the `TrainState` at step 0.
      batches: iterator over this process's rows of training batches, uint8 `(local_b, H, W, C)`.
    """
    config, model, everywhere = setup.config, setup.model, replicated(setup.mesh)
    pixels = math.prod(as_size(config.data.image_size))
    signals = config.data.batch_size * pixels // model.signal_pixels
    count = min(32, -(-4 * len(state.dictionary["atoms"]) // signals))

    @functools.partial(compiler.jit, out_shardings=everywhere)
    def latents_of(params, images):
        return model.apply({"params": params}, to_network(images), method="encode")

    latents = [latents_of(state.params, put_batch(next(batches), setup.mesh)) for _ in range(count)]
    init = jax.jit(model.bottleneck.init_dictionary, out_shardings=everywhere)
    dictionary = init(state.dictionary, jnp.concatenate(latents), key=jax.random.key(config.seed))
    ema_params = dict(state.ema_params)
    if "atoms" in ema_params:
        # A copy, because a step cannot donate one buffer twice.
        ema_params["atoms"] = jnp.copy(dictionary["atoms"])
    return state.replace(dictionary=dictionary, ema_params=ema_params)


def _init_state(setup):
    config, model = setup.config, setup.model
    params, dictionary, extra = setup.init(jax.random.key(config.seed))
    # float32 if the network computes in bfloat16, float64 if in float64.
    params = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, model.dtype)), params)
    ema_params = {}
    if config.optimizer.ema_decay:
        ema_params["params"] = params
        if setup.optimizer.atoms:
            ema_params["atoms"] = dictionary["atoms"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        dictionary=dictionary,
        opt_state=setup.optimizer.init(params, dictionary.get("atoms")),
        ema_params=ema_params,
        extra=extra,
    )
