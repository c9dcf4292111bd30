import jax
import jax.numpy as jnp
import numpy as np

from laser_jax.losses import reconstruction_loss


def test_pixel_losses_are_weighted_means():
    a, b = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, -1.0]])
    np.testing.assert_allclose(reconstruction_loss(a, b), (0.25 + 4) / 2)
    np.testing.assert_allclose(reconstruction_loss(a, b, mse_weight=0.0, l1_weight=2.0), 2.5)


def test_a_term_of_weight_zero_is_not_computed():
    jaxpr = jax.make_jaxpr(reconstruction_loss)(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 2, 2, 3)))
    assert "abs" not in str(jaxpr)
