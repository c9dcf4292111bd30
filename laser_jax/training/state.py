"""The state of a training run: arrays only, so it can be jitted, sharded and stored."""

from typing import Any

import flax
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class TrainState:
    """Everything a run needs to go on; the batch at a step follows from seed and step alone.

    Attributes:
      step: int32 scalar, steps made.
      params: the network's parameters.
      dictionary: the bottleneck's collection: atoms, their usage, what their update remembers.
      opt_state: the optimizers' states, of `params` and of the `dictionary`.
      ema_params: moving averages of `params` and, if the optimizer moves them, of the `atoms`;
        empty without EMA.
      extra: what further losses keep: the `discriminator`, if there is one.
    """

    step: jax.Array
    params: Any
    dictionary: Any
    opt_state: Any
    ema_params: Any
    extra: Any

    def variables(self):
        """Returns the model's variables as trained."""
        return {"params": self.params, "dictionary": {"bottleneck": self.dictionary}}

    def eval_variables(self):
        """Returns the model's variables to evaluate: the moving averages where there are any."""
        params = self.ema_params.get("params", self.params)
        atoms = self.ema_params.get("atoms", self.dictionary["atoms"])
        dictionary = {**self.dictionary, "atoms": atoms}
        return {"params": params, "dictionary": {"bottleneck": dictionary}}


def init_state(model, optimizer, *, seed, image_size, ema_decay, adversary=None):
    """Returns the state at step 0, its dictionary still random.

    Args:
      model: the `Autoencoder`.
      optimizer: an `Optimizer`.
      seed: int.
      image_size: pixels a side.
      ema_decay: 0 for no moving averages.
      adversary: an `Adversary`, None for none.
    """
    images, key = jnp.zeros((1, image_size, image_size, model.in_channels)), jax.random.key(seed)
    variables = model.init(key, images)
    dictionary = variables["dictionary"]["bottleneck"]
    # float32 under bfloat16, float64 under float64.
    params = jax.tree.map(
        lambda x: x.astype(jnp.promote_types(x.dtype, model.dtype)), variables["params"]
    )
    ema_params = {}
    if ema_decay:
        ema_params["params"] = params
        if model.bottleneck.learns_by_gradient:
            ema_params["atoms"] = dictionary["atoms"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        dictionary=dictionary,
        opt_state=optimizer.init(params, dictionary["atoms"]),
        ema_params=ema_params,
        extra={"discriminator": adversary.init(key, images)} if adversary else {},
    )
