"""Against SciPy's DCT, NumPy's differences and scikit-image's pooling, in float64."""

import jax
import numpy as np
import pytest
from scipy import fft
from skimage.measure import block_reduce

from laser_jax.losses import mr_dct_loss, mr_gradient_loss


def pyramid(images, levels):
    for level in range(levels):
        if level:
            even = images[:, : images.shape[1] // 2 * 2, : images.shape[2] // 2 * 2]
            images = block_reduce(even, (1, 2, 2, 1), np.mean)
        yield images


def dct_distance(a, b):
    a, b = (fft.dctn(x, axes=(1, 2), norm="ortho") for x in (a, b))
    height, width = a.shape[1:3]
    weights = 1 + np.arange(height)[:, None] / height + np.arange(width)[None] / width
    return np.mean(weights[None, :, :, None] * np.abs(a - b))


def gradient_distance(a, b):
    return np.mean([np.abs(np.diff(a, axis=i) - np.diff(b, axis=i)).mean() for i in (1, 2)])


TERMS = {"dct": (mr_dct_loss, dct_distance), "gradient": (mr_gradient_loss, gradient_distance)}


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("term", TERMS)
def test_the_term_is_the_mean_over_the_pyramid(term, levels, pairs):
    loss, distance = TERMS[term]
    levels_of = [pyramid(p.astype(np.float64), levels) for p in pairs]
    expected = np.mean([distance(a, b) for a, b in zip(*levels_of, strict=True)])
    np.testing.assert_allclose(loss(*pairs, levels=levels), expected, rtol=1e-5)


def test_high_frequencies_weigh_more(pairs):
    images = pairs[0]
    flat = np.full_like(images, 0.1)
    checks = 0.1 * (-1.0) ** np.add.outer(np.arange(37), np.arange(50))
    checks = np.broadcast_to(checks[None, :, :, None], images.shape).astype(np.float32)
    # Of one energy; with one level the mean counts once and the finest pattern nearly three times,
    # spread over few coefficients.
    for loss in (mr_dct_loss, mr_gradient_loss):
        assert loss(images, images + checks, levels=1) > 2 * loss(images, images + flat, levels=1)


@pytest.mark.parametrize("term", TERMS)
def test_equal_images_have_no_loss_and_a_finite_gradient(term, pairs):
    loss, _ = TERMS[term]
    value, grad = jax.jit(jax.value_and_grad(loss, argnums=1))(pairs[0], pairs[0])
    assert value == 0 and np.all(np.isfinite(grad))


@pytest.mark.parametrize("term", TERMS)
def test_invalid_pyramid_levels_and_shapes_raise(term, pairs):
    loss, _ = TERMS[term]
    with pytest.raises(ValueError, match="got 6 levels for 37x50"):
        loss(*pairs, levels=6)
    with pytest.raises(ValueError, match="got 0 levels"):
        loss(*pairs, levels=0)
    with pytest.raises(ValueError, match="must have the same shape"):
        loss(pairs[0], pairs[1][:, :36])
