"""The hinge losses of a discriminator and of a generator."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from laser_jax.checks import check_floats, check_not_empty


def discriminator_hinge_loss(
    real_logits: Float[ArrayLike, "*real"], fake_logits: Float[ArrayLike, "*fake"]
) -> Float[Array, ""]:
    """Returns the discriminator's loss: real logits should be above 1, fake ones below -1."""
    check_not_empty(real_logits=real_logits, fake_logits=fake_logits)
    real_logits, fake_logits = check_floats(real_logits=real_logits, fake_logits=fake_logits)
    real, fake = jax.nn.relu(1 - real_logits), jax.nn.relu(1 + fake_logits)
    return (jnp.mean(real) + jnp.mean(fake)) / 2


def generator_hinge_loss(fake_logits: Float[ArrayLike, "*fake"]) -> Float[Array, ""]:
    """Returns the generator's loss: its logits should be high."""
    check_not_empty(fake_logits=fake_logits)
    (fake_logits,) = check_floats(fake_logits=fake_logits)
    return -jnp.mean(fake_logits)
