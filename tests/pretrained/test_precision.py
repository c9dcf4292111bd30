"""Float32 means float32 in what judges images, forwards and backwards."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from laser_jax.losses import coherence_penalty, mr_dct_loss
from laser_jax.metrics import ssim
from laser_jax.pretrained import inception_features, lpips_distance, vgg16_features
from laser_jax.pretrained.inception import InceptionV3
from laser_jax.pretrained.lpips import Lpips

IMAGES = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
LARGE = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)


def parameters(module, *images):
    return jax.eval_shape(module.init, jax.random.key(0), *images)["params"]


# A function of parameters or images, its arguments, and how many products it has at least.
ALEX, VGG = (parameters(Lpips(net), IMAGES, IMAGES) for net in ("alex", "vgg"))
CALLS = {
    "lpips alex": (functools.partial(lpips_distance, net="alex"), (ALEX, IMAGES, IMAGES), 15),
    "lpips vgg": (functools.partial(lpips_distance, net="vgg"), (VGG, IMAGES, IMAGES), 31),
    "vgg16": (vgg16_features, (VGG, IMAGES), 13),
    "inception": (inception_features, (parameters(InceptionV3(), LARGE), IMAGES), 94),
    "ssim": (ssim, (IMAGES, IMAGES), 10),
    "mr_dct": (mr_dct_loss, (IMAGES, IMAGES), 6),
    "coherence": (coherence_penalty, (jax.ShapeDtypeStruct((8, 4), jnp.float32),), 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_product_is_true_float32(name, products):
    function, arguments, count = CALLS[name]
    highest = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
    backwards = jax.grad(lambda *x: jnp.sum(function(*x)), argnums=len(arguments) - 1)
    for call in (function, backwards):
        found = products(call, *arguments)
        assert len(found) >= count
        assert all(equation.params["precision"] == highest for equation in found)
