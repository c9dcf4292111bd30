import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.losses import ImageLoss, l1, mr_dct_loss, mr_gradient_loss, mse
from laser_jax.metrics import lpips
from laser_jax.pretrained import load_lpips


def test_the_loss_is_the_weighted_sum_of_its_terms(pairs):
    loss = ImageLoss(
        mse_weight=2.0, l1_weight=0.5, perceptual_weight=0.3, perceptual_net="alex",
        mr_dct_weight=0.2, mr_dct_levels=2, mr_grad_weight=0.1, mr_grad_levels=4,
    )  # fmt: skip
    total, terms = loss(*pairs, load_lpips("alex"))
    expected = {
        "recon_loss": 2 * mse(*pairs) + 0.5 * l1(*pairs),
        "perceptual_loss": jnp.mean(lpips(*((p + 1) / 2 for p in pairs))),
        "mr_dct_loss": mr_dct_loss(*pairs, levels=2),
        "mr_grad_loss": mr_gradient_loss(*pairs, levels=4),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5)
    weights = np.array([1, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(total, weights @ np.array(list(expected.values())), rtol=1e-5)


@pytest.mark.parametrize(
    "weights, operations",
    [
        ({"l1_weight": 1.0}, {"abs"}),
        ({"mr_dct_weight": 1.0}, {"dot_general"}),
        ({"mr_grad_weight": 1.0}, {"abs", "slice"}),
    ],
)
def test_a_term_of_weight_zero_is_not_computed(weights, operations, pairs):
    def operations_of(loss):
        text = str(jax.make_jaxpr(loss)(*pairs))
        return {name for name in ("abs", "slice", "dot_general") if f" {name}" in text}

    assert operations <= operations_of(ImageLoss(**weights))
    assert not operations_of(ImageLoss())


def test_invalid_weights_raise(pairs):
    with pytest.raises(ValueError, match="mr_dct_weight must not be negative, got -1"):
        ImageLoss(mr_dct_weight=-1.0)
    with pytest.raises(ValueError, match="one of mse_weight, .*mr_grad_weight must be above 0"):
        ImageLoss(mse_weight=0.0)
    with pytest.raises(ValueError, match="unknown perceptual_net 'vgg19'"):
        ImageLoss(perceptual_net="vgg19")
    with pytest.raises(ValueError, match=r"perceptual_weight 0.5 needs .*load_lpips\('vgg'\)"):
        ImageLoss(perceptual_weight=0.5)(*pairs)
