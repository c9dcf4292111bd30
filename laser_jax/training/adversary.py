"""The adversarial term: a discriminator trained together with the autoencoder; off by default.

Its start must not degrade the reconstructions. The discriminator is trained alone for
`warmup_steps` before `start_step`. From `start_step` on the term acts. Its weight grows over
`warmup_steps` steps, and is adapted to the gradient of the other losses at the last layer.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from laser_jax.losses import discriminator_hinge_loss, generator_hinge_loss
from laser_jax.models.discriminator import PatchDiscriminator
from laser_jax.ranges import as_size
from laser_jax.training.gradients import over_parts

# Upper bound of the adaptive weight, and the term that avoids a division by zero in it.
_MAX_WEIGHT, _EPSILON = 1e4, 1e-4


class Adversary(NamedTuple):
    """The discriminator, its optimizer, and the schedule and weight of its term.

    Its state is a dict of `params` and `opt_state`, stored in `TrainState.extra`.
    """

    discriminator: PatchDiscriminator
    optimizer: optax.GradientTransformation
    weight: float
    start_step: int
    warmup_steps: int

    def init(self, key, images):
        """Returns the initial state; only the shape of `images` matters."""
        params = self.discriminator.init(key, images)["params"]
        return {"params": params, "opt_state": self.optimizer.init(params)}

    def is_active(self, step):
        """Returns whether a step (an int, from 1) trains the discriminator."""
        return step >= self.start_step - self.warmup_steps

    def generator_loss(self, state, reconstruction):
        """Returns the loss of the term, and its gradient with respect to the reconstruction.

        Args:
          state: the state of the discriminator.
          reconstruction: `(b, H, W, C)` in about [-1, 1].
        """
        return jax.value_and_grad(lambda x: generator_hinge_loss(self._logits(state["params"], x)))(
            reconstruction
        )

    def term_weight(self, step, image_norm, own_norm):
        """Returns the weight of the term.

        Args:
          step: int scalar, the current step, from 1.
          image_norm: norm of the gradient of all other image losses at the decoder's last layer.
          own_norm: norm of that of the term.

        References:
          Esser, Rombach and Ommer, Taming transformers for high-resolution image
          synthesis, 2021, equation 7 (the adaptive weight).
        """
        adaptive = jnp.clip(image_norm / (own_norm + _EPSILON), 0, _MAX_WEIGHT)
        growth = jnp.clip((step + 1 - self.start_step) / max(self.warmup_steps, 1), 0, 1)
        return self.weight * growth * adaptive

    def update(self, state, images, reconstruction, parts=1):
        """Returns the state of the discriminator after one optimizer step, and its loss.

        `parts` are those of the batch that are computed one after the other.
        """

        def loss_of(params, *batch):
            return discriminator_hinge_loss(*(self._logits(params, x) for x in batch))

        def of_part(*batch):
            return jax.value_and_grad(loss_of)(state["params"], *batch), ()

        (loss, grads), _ = over_parts(of_part, parts, images, reconstruction)
        updates, opt_state = self.optimizer.update(grads, state["opt_state"])
        return {
            "params": optax.apply_updates(state["params"], updates),
            "opt_state": opt_state,
        }, loss

    def _logits(self, params, images):
        return self.discriminator.apply({"params": params}, images)


def build_adversary(config):
    """Returns the `Adversary` of `config.adversarial`, None if its weight is 0.

    Raises:
      ValueError: if its values are inconsistent with the run or with each other.
    """
    options, size = config.adversarial, config.data.image_size
    sides = as_size(size)
    if not options.weight >= 0:
        raise ValueError(f"adversarial.weight must not be negative, got {options.weight}.")
    if not options.weight:
        return None
    if not 0 <= options.warmup_steps < options.start_step <= config.num_train_steps:
        raise ValueError(
            "0 <= adversarial.warmup_steps < adversarial.start_step <= num_train_steps must hold, "
            f"got {options.warmup_steps}, {options.start_step} and {config.num_train_steps}."
        )
    if options.num_downsamples < 1 or any(n % 2**options.num_downsamples for n in sides):
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
