import jax.numpy as jnp
import pytest

from laser_jax.losses import discriminator_hinge_loss, generator_hinge_loss


def test_hinge_losses_have_known_values():
    real, fake = jnp.array([2.0, 0.5]), jnp.array([-3.0, 0.0])
    assert discriminator_hinge_loss(real, fake) == pytest.approx((0.25 + 0.5) / 2)
    assert discriminator_hinge_loss(real + 9, fake - 9) == 0
    assert generator_hinge_loss(fake) == pytest.approx(1.5)
