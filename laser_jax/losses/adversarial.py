"""The hinge losses of a discriminator and of what it judges."""

import jax
import jax.numpy as jnp

from laser_jax.checks import check_floats, check_not_empty


def discriminator_hinge_loss(real_logits, fake_logits):
    """Returns the discriminator's loss: real logits should be above 1, the others below -1."""
    check_not_empty(real_logits=real_logits, fake_logits=fake_logits)
    real_logits, fake_logits = check_floats(real_logits=real_logits, fake_logits=fake_logits)
    real, fake = jax.nn.relu(1 - real_logits), jax.nn.relu(1 + fake_logits)
    return (jnp.mean(real) + jnp.mean(fake)) / 2


def generator_hinge_loss(fake_logits):
    """Returns the loss of what is judged: its logits should be high."""
    check_not_empty(fake_logits=fake_logits)
    (fake_logits,) = check_floats(fake_logits=fake_logits)
    return -jnp.mean(fake_logits)
