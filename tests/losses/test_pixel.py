import numpy as np
from skimage import metrics as reference

from laser_jax.losses import l1, mse


def test_mse_is_scikit_images(pairs):
    np.testing.assert_allclose(mse(*pairs), reference.mean_squared_error(*pairs), rtol=1e-5)


def test_l1_is_the_mean_absolute_error(pairs):
    a, b = (p.astype(np.float64) for p in pairs)
    np.testing.assert_allclose(l1(*pairs), np.abs(a - b).mean(), rtol=1e-5)
