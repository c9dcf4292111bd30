"""Float32 means float32 in what judges images, forwards and backwards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from laser_jax.evaluation.split import make_eval_step
from laser_jax.losses import ImageLoss, coherence_penalty, mr_dct_loss
from laser_jax.metrics import ssim
from laser_jax.models import build_model
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


@pytest.mark.parametrize(
    "precision, expected", [("highest", 2 * (lax.Precision.HIGHEST,)), ("default", None)]
)
def test_training_loss_has_the_precision_of_its_key(precision, expected, products):
    loss = ImageLoss(perceptual_weight=1.0, perceptual_net="alex", perceptual_precision=precision)
    backwards = jax.grad(lambda x, y, params: loss(x, y, params)[0], argnums=1)
    found = products(backwards, IMAGES, IMAGES, ALEX)
    assert len(found) >= 15
    assert all(equation.params["precision"] == expected for equation in found)


def test_validation_is_exact_whatever_the_precision_of_the_loss(tiny_config, products):
    tiny_config.loss.update(
        perceptual_weight=1.0, perceptual_net="alex", perceptual_precision="default"
    )
    model = build_model(tiny_config)
    images = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    eval_step = make_eval_step(model, ImageLoss(**tiny_config.loss), ALEX)
    found = products(eval_step, variables, np.zeros(images.shape, np.uint8), np.ones(2, bool))
    trunk = [e for e in found if e.outvars[0].aval.shape[-1] == 192]  # AlexNet's second layer
    assert trunk and all(e.params["precision"] == 2 * (lax.Precision.HIGHEST,) for e in trunk)


def test_unknown_precision_raises():
    message = "unknown perceptual_precision 'high'; choose from default, highest"
    with pytest.raises(ValueError, match=message):
        ImageLoss(perceptual_precision="high")
