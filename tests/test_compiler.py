import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from laser_jax import compiler

IMAGES, KERNEL = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))


def convolve(images, kernel, scale=1):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return scale * lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=dimensions
    )


@pytest.fixture
def no_known_options():
    compiler._known_cpu_options.cache_clear()
    yield
    compiler._known_cpu_options.cache_clear()


@pytest.mark.skipif(not compiler._known_cpu_options(), reason="this jaxlib has no such option")
def test_convolutions_on_cpus_are_not_given_to_ynnpack():
    program = compiler.jit(convolve).lower(IMAGES, KERNEL).compile().as_text()
    assert " convolution(" in program and "ynn_fusion" not in program


def test_option_that_this_jaxlib_does_not_know_is_left_out(monkeypatch, no_known_options):
    monkeypatch.setattr(compiler, "_CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
    np.testing.assert_array_equal(compiler.jit(convolve)(IMAGES, KERNEL)[0, 1, 1, 0], 36)


@pytest.mark.parametrize("outer", [
    jax.jit, jax.vmap,
    lambda f: jax.grad(lambda x: jnp.sum(f(x))),
    lambda f: jax.jit(compiler.jit(f)),
])  # fmt: skip
def test_function_can_be_called_inside_transformations(outer):
    images = jnp.stack([IMAGES, 2 * IMAGES])[:, :, None]
    flat = lambda f, x: f(x.reshape(-1, 8, 8, 4), KERNEL).reshape(x.shape)  # noqa: E731
    found = outer(functools.partial(flat, compiler.jit(convolve)))(images)
    np.testing.assert_allclose(found, outer(functools.partial(flat, convolve))(images), rtol=1e-6)


def test_function_can_be_called_on_constants_while_another_is_traced():
    inner = compiler.jit(convolve)
    found = jax.jit(lambda: inner(IMAGES, KERNEL))()
    np.testing.assert_array_equal(found, convolve(IMAGES, KERNEL))
    assert jax.eval_shape(inner, IMAGES, KERNEL).shape == IMAGES.shape


def test_options_of_jit_are_kept():
    run = compiler.jit(convolve, static_argnames="scale", donate_argnums=0)
    images = jnp.copy(IMAGES)
    np.testing.assert_array_equal(run(images, KERNEL, scale=2), 2 * convolve(IMAGES, KERNEL))
    assert images.is_deleted() and run.__name__ == "convolve"
