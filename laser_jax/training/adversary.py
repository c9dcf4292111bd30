"""The adversarial term: a discriminator that learns beside the autoencoder, off by default.

Its start must not ruin the reconstructions. So the discriminator learns alone for
`warmup_steps` before `start_step`; from `start_step` on the term acts, its weight growing over
`warmup_steps` steps and always adapted to the other losses' pull on the last layer.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from laser_jax.losses import discriminator_hinge_loss, generator_hinge_loss
from laser_jax.models.discriminator import PatchDiscriminator

# Bound of the adaptive weight, and what keeps it finite where the discriminator is flat.
_LARGEST, _EPSILON = 1e4, 1e-4


class Adversary(NamedTuple):
    """The discriminator, its optimizer, and when and how much it acts.

    Its state is a dict of `params` and `opt_state`, kept in `TrainState.extra`.
    """

    discriminator: PatchDiscriminator
    optimizer: optax.GradientTransformation
    weight: float
    start_step: int
    warmup_steps: int

    def init(self, key, images):
        """Returns the state before the first step; `images` only give the shape."""
        params = self.discriminator.init(key, images)["params"]
        return {"params": params, "opt_state": self.optimizer.init(params)}

    def is_active(self, step):
        """Returns whether a step (an int, from 1) trains the discriminator."""
        return step >= self.start_step - self.warmup_steps

    def generator_gradient(self, state, step, reconstruction, image_grad, last_layer_grad):
        """Returns the term's loss, its weight, and its weighted gradient by the reconstruction.

        Args:
          state: the discriminator's.
          step: int scalar, the step being made, from 1.
          reconstruction: `(b, H, W, C)` in about [-1, 1].
          image_grad: the same shape, the gradient of all other image losses.
          last_layer_grad: maps such a gradient to that of the decoder's last layer.

        References:
          Esser, Rombach and Ommer, Taming transformers for high-resolution image
          synthesis, 2021, equation 7 (the adaptive weight).
        """
        loss, grad = jax.value_and_grad(
            lambda x: generator_hinge_loss(self._judge(state["params"], x))
        )(reconstruction)
        norms = [optax.global_norm(last_layer_grad(g)) for g in (image_grad, grad)]
        adaptive = jnp.clip(norms[0] / (norms[1] + _EPSILON), 0, _LARGEST)
        growth = jnp.clip((step + 1 - self.start_step) / max(self.warmup_steps, 1), 0, 1)
        weight = self.weight * growth * adaptive
        return loss, weight, weight * grad

    def update(self, state, images, reconstruction):
        """Returns the discriminator's state after a step of its own, and its loss."""

        def loss_of(params):
            logits = (self._judge(params, x) for x in (images, reconstruction))
            return discriminator_hinge_loss(*logits)

        loss, grads = jax.value_and_grad(loss_of)(state["params"])
        updates, opt_state = self.optimizer.update(grads, state["opt_state"])
        return {
            "params": optax.apply_updates(state["params"], updates),
            "opt_state": opt_state,
        }, loss

    def _judge(self, params, images):
        return self.discriminator.apply({"params": params}, images)


def build_adversary(config):
    """Returns the `Adversary` that `config.adversarial` describes, None if its weight is 0.

    Raises:
      ValueError: if its values do not fit the run or each other.
    """
    options, size = config.adversarial, config.data.image_size
    if not options.weight >= 0:
        raise ValueError(f"adversarial.weight must not be negative, got {options.weight}.")
    if not options.weight:
        return None
    if not 0 <= options.warmup_steps < options.start_step <= config.num_train_steps:
        raise ValueError(
            "0 <= adversarial.warmup_steps < adversarial.start_step <= num_train_steps must hold, "
            f"got {options.warmup_steps}, {options.start_step} and {config.num_train_steps}."
        )
    if options.num_downsamples < 1 or size % 2**options.num_downsamples:
        raise ValueError(
            f"image size {size} (data.image_size) is not divisible by 2^adversarial."
            f"num_downsamples, or that is below 1: got {options.num_downsamples}."
        )
    discriminator = PatchDiscriminator(
        options.num_hiddens, options.num_downsamples, dtype=jnp.dtype(config.model.dtype)
    )
    optimizer = optax.adam(options.learning_rate, b1=0.5, b2=0.9)
    return Adversary(
        discriminator, optimizer, options.weight, options.start_step, options.warmup_steps
    )
