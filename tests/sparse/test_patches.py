"""Overlapping patches against a loop in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import average_patches, extract_patches

# Height, width, channels, patch size, stride: even, ragged, one patch, one pixel a patch, all.
SIZES = [(6, 8, 1, 2, 2), (7, 9, 3, 3, 2), (5, 11, 2, 4, 3), (4, 4, 3, 4, 1), (3, 2, 1, 1, 1)]
SIZES += [(7, 5, 1, 3, 1)]


def corners(h, w, p, stride):
    """The upper left corner of every patch: at multiples of the stride, and at the border."""
    rows, columns = (sorted({*range(0, x - p + 1, stride), x - p}) for x in (h, w))
    return [(top, left) for top in rows for left in columns]


def loop_extract(image, p, stride):
    places = corners(*image.shape[:2], p, stride)
    return np.stack([image[t : t + p, x : x + p].ravel() for t, x in places])


def loop_average(patches, weights, shape, p, stride):
    total, count = np.zeros(shape), np.zeros(shape)
    for patch, weight, (t, x) in zip(patches, weights, corners(*shape[:2], p, stride), strict=True):
        total[t : t + p, x : x + p] += (weight * patch).reshape(p, p, -1)
        count[t : t + p, x : x + p] += np.broadcast_to(weight, patch.shape).reshape(p, p, -1)
    return total / count


@pytest.mark.parametrize("h, w, c, p, stride", SIZES)
def test_patches_and_averages_equal_those_of_a_loop_and_invert_each_other(rng, h, w, c, p, stride):
    images = rng.random((2, h, w, c), np.float32)
    patches = extract_patches(images, patch_size=p, stride=stride)
    expected = np.stack([loop_extract(image, p, stride) for image in images])
    np.testing.assert_array_equal(patches, expected)
    sizes = {"patch_size": p, "stride": stride}
    again = average_patches(patches, (h, w, c), **sizes)
    np.testing.assert_allclose(again, images, rtol=1e-6)
    others = rng.random(patches.shape, np.float32)
    for weights in (rng.random(patches.shape[:-1], np.float32), rng.random(patches.shape)):
        found = average_patches(others, (h, w, c), weights=weights, **sizes)
        rows = weights.reshape(*patches.shape[:-1], -1)
        expected = [loop_average(*x, (h, w, c), p, stride) for x in zip(others, rows, strict=True)]
        np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5)


def test_a_value_of_weight_0_is_not_read_and_a_pixel_without_weight_is_0(rng):
    image = rng.random((5, 5, 1), np.float32)
    patches = np.array(extract_patches(image, patch_size=2, stride=1))
    weights = np.ones(16, np.float32)
    weights[5], patches[5] = 0, np.nan
    average = lambda x, w: average_patches(x, (5, 5, 1), patch_size=2, weights=w)  # noqa: E731
    np.testing.assert_allclose(average(patches, weights), image, rtol=1e-6)
    assert np.all(np.isfinite(jax.grad(lambda x: average(x, weights).sum())(patches)))
    weights[0] = 0  # the corner is in this patch alone
    found = average(patches, weights)
    assert found[0, 0, 0] == 0 and np.all(found[1:] > 0)


def test_each_is_the_transpose_of_a_sum_over_the_other(rng):
    image, shape = rng.random((6, 7, 2), np.float32), (6, 7, 2)
    sizes = {"patch_size": 3, "stride": 2}
    patches, back = jax.vjp(lambda x: extract_patches(x, **sizes), image)
    others = rng.random(patches.shape, np.float32)
    counts = back(jnp.ones_like(patches))[0]
    average = average_patches(others, shape, **sizes)
    np.testing.assert_allclose(back(others)[0], average * counts, rtol=1e-5)
    (forth,) = jax.vjp(lambda x: average_patches(x, shape, **sizes), others)[1](image * counts)
    np.testing.assert_allclose(forth, patches, rtol=1e-5)


def test_vmap_and_jit_equal_a_batch(rng):
    images = rng.random((3, 6, 7, 2), np.float32)
    extract = jax.jit(lambda x: extract_patches(x, patch_size=3, stride=2))
    patches = extract(images)
    np.testing.assert_array_equal(jax.vmap(extract)(images), patches)
    average = lambda x: average_patches(x, (6, 7, 2), patch_size=3, stride=2)  # noqa: E731
    np.testing.assert_allclose(jax.vmap(average)(patches), average(patches), rtol=1e-6)


@pytest.mark.parametrize("call, message", [
    (lambda x: extract_patches(x[..., 0], patch_size=2), r"\(\.\.\., H, W, C\), got \(4, 5\)"),
    (lambda x: extract_patches(x, patch_size=5), r"from 1 to the sides .*\(4, 5, 1\), got 5"),
    (lambda x: extract_patches(x, patch_size=2, stride=3), "from 1 to patch_size 2, got 3"),
    (lambda x: extract_patches(x, patch_size=2.5), "patch_size must be a static integer, got 2.5"),
    (lambda x: extract_patches(np.int32(x), patch_size=2), "images must be floating point"),
    (lambda x: average_patches(x, (4, 5), patch_size=2), r"\(H, W, C\), got \(4, 5\)"),
    (lambda x: average_patches(x, 4, patch_size=2), "tuple of static integers, got 4"),
    (lambda x: average_patches(x[0], (4, 5, 1), patch_size=2), r"\(\.\.\., 12, 4\), got \(5, 1\)"),
    (lambda x: average_patches(np.ones((12, 4), "f"), (4, 5, 1), patch_size=2,
                               weights=np.ones(4)), r"shape \(12,\) or \(12, 4\), got \(4,\)"),
])  # fmt: skip
def test_wrong_arguments_raise_with_the_values(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((4, 5, 1), np.float32))
