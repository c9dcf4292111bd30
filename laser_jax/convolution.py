"""Convolutions of networks, in a form that XLA computes fast inside loops on CPUs too.

XLA for CPUs gives a convolution to Eigen only if its axes have the order batch, space, features.
It rearranges others, such as the gradients of convolutions, but not those inside loops. There it
computes them one scalar after the other, forty times as slowly (jaxlib 0.10.2).
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_IN_LOOP = contextvars.ContextVar("in_loop", default=False)


@contextlib.contextmanager
def inside_loop() -> Iterator[None]:
    """Marks what is traced in the block as the body of a loop.

    On CPUs, gradients of `convolve` are then traced as convolutions of the order above. They can be
    differentiated in reverse mode only.
    """
    token = _IN_LOOP.set(jax.default_backend() == "cpu")
    try:
        yield
    finally:
        _IN_LOOP.reset(token)


def convolve(x, kernel, strides, padding, **options):
    """Returns `lax.conv_general_dilated` of `(b, H, W, C)` and `(kh, kw, C, features)`."""
    window = kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    dilated = any(max(options.get(f"{side}_dilation") or [1]) > 1 for side in ("lhs", "rhs"))
    grouped = options.get("feature_group_count", 1) > 1
    wide = any(low >= size for (low, _), size in zip(padding, window, strict=True))
    if _IN_LOOP.get() and not (dilated or grouped or wide):
        kept = {name: options.get(name) for name in ("precision", "preferred_element_type")}
        return _convolve_in_loop(x, kernel, strides, padding, kept)
    return lax.conv_general_dilated(
        x, kernel, strides, padding, **{"dimension_numbers": DIMENSIONS, **options}
    )


Conv = functools.partial(nn.Conv, conv_general_dilated=convolve)


def _convolve_in_loop(x, kernel, strides, pads, options):
    convolution = functools.partial(
        lax.conv_general_dilated, dimension_numbers=DIMENSIONS, **options
    )

    @jax.custom_vjp
    def apply(x, kernel):
        return convolution(x, kernel, strides, pads)

    def backward(saved, grad):
        x, kernel = saved
        low = [pair[0] for pair in pads]
        # From the first to the last pixel that the first tap reads.
        reach = [(size - 1) * s + 1 for size, s in zip(grad.shape[1:3], strides, strict=True)]
        # The gradient of x: each output is spread over its window.
        before = [k - 1 - p for k, p in zip(kernel.shape, low, strict=False)]
        after = [
            size + k - 1 - r - b
            for size, k, r, b in zip(x.shape[1:3], kernel.shape, reach, before, strict=False)
        ]
        # Where outputs are few, XLA would turn `lhs_dilation` into another order of axes.
        spread = [(0, 0, 0), *((0, 0, stride - 1) for stride in strides), (0, 0, 0)]
        grad_x = convolution(
            lax.pad(grad, jnp.zeros((), grad.dtype), spread),
            jnp.flip(kernel, (0, 1)).swapaxes(2, 3), (1, 1),
            tuple(zip(before, after, strict=True)),
        )  # fmt: skip
        # That of the kernel: channels are the batch, pictures the features. Rows that no window
        # reads are cut off.
        after = [
            k - size - p + r - 1
            for k, size, p, r in zip(kernel.shape, x.shape[1:3], low, reach, strict=False)
        ]
        height, width = (size + min(a, 0) for size, a in zip(x.shape[1:3], after, strict=True))
        grad_kernel = convolution(
            x[:, :height, :width].transpose(3, 1, 2, 0), grad.transpose(1, 2, 0, 3), (1, 1),
            tuple((p, max(a, 0)) for p, a in zip(low, after, strict=True)), rhs_dilation=strides,
        )  # fmt: skip
        return grad_x, grad_kernel.transpose(1, 2, 0, 3)

    apply.defvjp(lambda x, kernel: (apply(x, kernel), (x, kernel)), backward)
    return apply(x, kernel)
