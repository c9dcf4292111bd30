"""The network for large pictures, against the published one; most checks compile nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.models import Autoencoder, DictionaryLearning, VectorQuantizer, vqgan
from laser_jax.models.vqgan import SelfAttention, num_groups

PUBLISHED = {
    "network": "vqgan",
    "num_hiddens": 128,
    "num_residual_blocks": 2,
    "num_downsamples": 4,
    "channel_multipliers": (1, 1, 2, 2, 4),
    "attention_levels": (4,),
    "z_channels": 256,
}
SMALL = {
    "network": "vqgan",
    "num_hiddens": 8,
    "num_residual_blocks": 1,
    "num_downsamples": 1,
    "channel_multipliers": (1, 2),
    "attention_levels": (1,),
    "z_channels": 8,
}


def shapes_of(model, side=256):
    images = jax.ShapeDtypeStruct((1, side, side, model.in_channels), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images)


def count_by_layers(decoder):
    """Returns the parameters of VQGAN's encoder or decoder, layer by layer as in its code."""
    conv = lambda i, o, side=3: i * o * side**2 + o  # noqa: E731
    norm = lambda c: 2 * c  # noqa: E731
    attention = lambda c: norm(c) + 4 * conv(c, c, 1)  # noqa: E731

    def block(i, o):
        return norm(i) + conv(i, o) + norm(o) + conv(o, o) + (i != o) * conv(i, o, 1)

    widths = [128 * multiplier for multiplier in (1, 1, 2, 2, 4)]
    deepest = widths[-1]
    total = 2 * block(deepest, deepest) + attention(deepest)
    width = deepest if decoder else 128
    total += conv(256, deepest) if decoder else conv(3, 128)
    for level in reversed(range(5)) if decoder else range(5):
        for _ in range(3 if decoder else 2):
            total += block(width, widths[level])
            width = widths[level]
            total += attention(width) if level == 4 else 0
        if level != (0 if decoder else 4):
            total += conv(width, width)
    return total + norm(width) + (conv(width, 3) if decoder else conv(width, 256))


def test_f16_network_has_the_parameters_and_shapes_of_vqgan():
    out, variables = shapes_of(Autoencoder(bottleneck=VectorQuantizer(1024, 256), **PUBLISHED))
    count = {
        name: sum(x.size for x in jax.tree.leaves(part))
        for name, part in variables["params"].items()
    }
    assert count == {
        "encoder": count_by_layers(decoder=False),
        "decoder": count_by_layers(decoder=True),
        "pre_bottleneck": 256 * 256 + 256,
        "post_bottleneck": 256 * 256 + 256,
    }
    assert (count["encoder"], count["decoder"]) == (29_298_176, 42_449_795)
    assert out.latents.shape == (1, 16, 16, 256) and out.code.indices.shape == (1, 16, 16, 1)
    assert out.reconstruction.shape == (1, 256, 256, 3)


@pytest.mark.parametrize("num_hiddens", [2, 6, 16])
def test_any_number_of_channels_has_groups(num_hiddens):
    model = Autoencoder(
        bottleneck=VectorQuantizer(16, 4), **{**SMALL, "num_hiddens": num_hiddens}, in_channels=1
    )
    out, _ = shapes_of(model, side=8)
    assert out.latents.shape == (1, 4, 4, 4) and out.reconstruction.shape == (1, 8, 8, 1)
    groups = num_groups(num_hiddens)
    assert num_hiddens % groups == 0 and (groups == 1 or num_hiddens // groups >= 4)


def test_groups_are_the_published_32_where_they_fit():
    assert [num_groups(c) for c in (1, 16, 24, 96, 128, 512)] == [1, 4, 6, 24, 32, 32]


def test_products_of_a_bfloat16_network_are_bfloat16_and_its_code_float32(products):
    bottleneck = DictionaryLearning(num_embeddings=16, embedding_dim=4, sparsity_level=2)
    model = Autoencoder(bottleneck=bottleneck, dtype=jnp.bfloat16, **SMALL)
    out, variables = shapes_of(model, side=8)
    images = jnp.zeros((1, 8, 8, 3))
    encoded = functools.partial(model.apply, method="encode")
    found = products(encoded, variables, images)
    assert len(found) > 12
    assert {x.aval.dtype for e in found for x in e.invars} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    floats = (out.latents, out.approximation, out.reconstruction, out.code.coefficients)
    assert {x.dtype for x in floats} == {jnp.dtype(jnp.float32)}
    coded = products(model.bottleneck.encode, jnp.zeros((16, 4)), jnp.zeros((1, 4, 4, 4)))
    assert {x.aval.dtype for e in coded for x in e.invars} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("network, blocks", [("vqvae", 2), ("vqgan", 15)])
def test_remat_of_the_same_parameters_computes_every_block_again(network, blocks):
    model = Autoencoder(bottleneck=VectorQuantizer(16, 4), **{**SMALL, "network": network})
    _, variables = shapes_of(model, side=8)

    def count(model):
        jaxpr = jax.make_jaxpr(model.apply)(variables, jnp.zeros((1, 8, 8, 3)))
        return str(jaxpr).count("= remat2[")

    assert count(model.clone(remat=True)) == count(model) + blocks


def test_attention_is_softmax_attention_over_all_positions():
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4))
    out, variables = SelfAttention().init_with_output(jax.random.key(0), jnp.asarray(x, "float32"))
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), variables["params"])
    normal = ((x - x.mean()) / np.sqrt(x.var() + 1e-6)).reshape(6, 4)  # one group
    query, key, value = (normal @ params[name]["kernel"] for name in ("query", "key", "value"))
    weights = np.exp(query @ key.T / 2)
    found = weights / weights.sum(1, keepdims=True) @ value @ params["out"]["kernel"]
    np.testing.assert_allclose(out, x + found.reshape(x.shape), atol=1e-5)


def sizes_of(jaxpr):
    """Yields the sizes of all arrays of a program, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield from (x.aval.size for x in equation.outvars)
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from sizes_of(inner)


def test_attention_in_blocks_is_that_of_all_queries_and_so_is_its_gradient(monkeypatch):
    inputs = np.random.default_rng(0).standard_normal((3, 2, 10, 1, 4)).astype("float32")

    def found():
        def loss(*inputs):
            out = vqgan.attend(*inputs)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*inputs)

    whole = found()
    monkeypatch.setattr(vqgan, "_MOST_WEIGHTS", 40)  # blocks of 4 queries, the last of 2
    again = found()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), whole, again)


@pytest.mark.parametrize("side, blocks", [(64, False), (128, True), (256, True)])
def test_attention_of_many_positions_never_holds_all_their_weights(side, blocks):
    x = jax.ShapeDtypeStruct((1, side**2, 1, 8), jnp.float32)
    step = jax.grad(lambda *x: jnp.sum(vqgan.attend(*x)), (0, 1, 2))
    jaxpr = jax.make_jaxpr(step)(x, x, x).jaxpr
    assert max(sizes_of(jaxpr)) == 2**24
    assert any(equation.primitive.name == "scan" for equation in jaxpr.eqns) == blocks


@pytest.mark.parametrize("changes, message", [
    ({"num_downsamples": 2}, r"num_downsamples \+ 1 = 3 values, one for each size, got \(1, 2\)"),
    ({"attention_levels": (2,)}, r"at most num_downsamples 1, got \(2,\)"),
    ({"network": "unet"}, "unknown network 'unet'"),
])  # fmt: skip
def test_inconsistent_fields_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        Autoencoder(bottleneck=VectorQuantizer(16, 4), **{**SMALL, **changes})
