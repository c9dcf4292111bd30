"""Layers of networks, in forms that XLA for CPUs computes fast: convolutions, dense layers, ReLU.

XLA for CPUs gives a convolution to Eigen only if its axes have the order batch, space, features.
It rearranges others, such as those of JAX's gradients, at a cost, and not at all inside loops:
there it computes one scalar after the other, forty times as slowly (jaxlib 0.10.2). On CPUs the
gradients are therefore given here, in that order. The form is chosen at tracing, by JAX's default
backend; the numbers are the same on all.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolve(x, kernel, strides, padding, *, precision=None, **options):
    """Returns `lax.conv_general_dilated` of `(b, H, W, C)` and `(kh, kw, C, features)`."""
    strides, window, size = tuple(strides), kernel.shape[:2], x.shape[1:3]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(size, window, strides, padding)
    sides = zip(size, window, padding, strict=True)
    usual = all(max(pads) < k <= sum(pads, pixels) for pixels, k, pads in sides)
    for name, value in options.items():  # dilations and numbers of groups; the order is Flax's
        usual &= name == "dimension_numbers" or value is None or np.all(np.equal(value, 1))
    if jax.default_backend() != "cpu" or not usual:
        options = {"dimension_numbers": DIMENSIONS, "precision": precision, **options}
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    # Eigen copies the channels of each pixel at once, so few of them take long.
    apply = convolve_cells if max(strides) > 1 and x.shape[-1] < 16 else _in_order
    return with_gradients(
        lambda x, kernel: apply(x, kernel, strides, padding, precision),
        lambda grad, kernel: convolve_transpose(grad, kernel, strides, padding, size, precision),
        lambda grad, x: kernel_gradient(grad, x, window, strides, padding, precision),
    )(x, kernel)


def multiply_rows(x, kernel, dimension_numbers, **options):
    """Returns `lax.dot_general` of `(..., C)` and `(C, features)`, as a product of two matrices.

    If x has more axes, XLA for CPUs copies the gradient before it multiplies.
    """
    del dimension_numbers  # Flax's: the last axis of x and the first of the kernel
    rows = x.reshape(-1, x.shape[-1])
    y = lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


Conv = functools.partial(nn.Conv, conv_general_dilated=convolve)
Dense = functools.partial(nn.Dense, dot_general=multiply_rows)


def relu(x):
    """Returns max(x, 0), on CPUs in a form that XLA computes once.

    XLA computes a maximum with a constant again for each use. Where a use reads the pixels in
    another order, that takes several times as long as a copy.
    """
    if jax.default_backend() != "cpu":
        return nn.relu(x)
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


def with_gradients(apply, grad_x, grad_kernel):
    """Returns a bilinear function `apply(x, kernel)` with other gradients on CPUs.

    Args:
      apply: the function.
      grad_x: maps the gradient of the result and the kernel to the gradient of x.
      grad_kernel: maps the gradient of the result and x to that of the kernel.
    """
    if jax.default_backend() != "cpu":
        return apply
    function = jax.custom_jvp(apply)

    # Not `custom_vjp`: with linear maps and their transposes, forward mode works too.
    @functools.partial(function.defjvp, symbolic_zeros=True)
    def _(primals, tangents):
        y = function(*primals)
        terms = [
            jax.linear_transpose(lambda grad, to=to, other=other: to(grad, other), y)(tangent)[0]
            for to, other, tangent in zip(
                (grad_x, grad_kernel), primals[::-1], tangents, strict=True
            )
            if not isinstance(tangent, SymbolicZero)
        ]
        return y, sum(terms)

    return function


def convolve_cells(x, kernel, strides, pads, precision=None):
    """Returns a strided convolution as one of stride 1 over cells of pixels (space to depth).

    A cell has the height and width of the strides and holds its pixels as channels.
    """
    b, *size, channels = x.shape
    taps = _split_taps(kernel, strides)
    n, s, m, t, _, features = taps.shape
    count = [
        (pixels + low + high - k) // stride + taps_of_cells
        for pixels, (low, high), k, stride, taps_of_cells in zip(
            size, pads, kernel.shape[:2], strides, (n, m), strict=True
        )
    ]
    edges = [
        (low, cells * stride - low - pixels, 0)
        for pixels, (low, _), stride, cells in zip(size, pads, strides, count, strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    x = x.reshape(b, count[0], s, count[1], t, channels).transpose(0, 1, 3, 2, 4, 5)
    taps = taps.transpose(0, 2, 1, 3, 4, 5).reshape(n, m, -1, features)
    return _in_order(x.reshape(b, *count, -1), taps, (1, 1), ((0, 0), (0, 0)), precision)


def convolve_transpose(x, kernel, strides, pads, size, precision=None):
    """Returns the transpose of a convolution, computed in cells as in `convolve_cells`.

    Args:
      x: an array of the shape of the convolution's result, `(b, h, w, features)`.
      kernel: of the convolution, `(kh, kw, channels, features)`.
      strides: of the convolution.
      pads: of the convolution, `(low, high)` for each side.
      size: height and width of what the convolution is applied to.
      precision: of `lax.conv_general_dilated`.
    """
    low = [pair[0] for pair in pads]
    taps = _split_taps(kernel, strides)
    n, s, m, t, channels, features = taps.shape
    # Cell i + j gets pixel i times the taps j.
    taps = jnp.flip(taps, (0, 2)).transpose(0, 2, 5, 1, 3, 4).reshape(n, m, features, -1)
    first = [pad // stride for pad, stride in zip(low, strides, strict=True)]
    end = [-(-(a + b) // stride) for a, b, stride in zip(low, size, strides, strict=True)]
    borders = [
        (k - 1 - a, b - pixels)
        for k, a, b, pixels in zip((n, m), first, end, x.shape[1:3], strict=True)
    ]
    x = _in_order(x, taps, (1, 1), borders, precision)
    b, height, width, _ = x.shape
    x = x.reshape(b, height, width, s, t, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(b, height * s, width * t, channels)
    top, left = (pad % stride for pad, stride in zip(low, strides, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]


def kernel_gradient(grad, x, window, strides, pads, precision=None):
    """Returns the gradient of a kernel; its sums over pictures become those over channels.

    Args:
      grad: the gradient of the result, `(b, h, w, features)`.
      x: what the kernel is applied to, `(b, H, W, channels)`.
      window: height and width of the kernel.
      strides: of the convolution.
      pads: of the convolution, `(low, high)` for each side.
      precision: of `lax.conv_general_dilated`.
    """
    channels, features = x.shape[-1], grad.shape[-1]
    plain = strides == (1, 1)
    if plain and window == (1, 1):
        rows = (((0,), (0,)), ((), ()))
        x, grad = x.reshape(-1, channels), grad.reshape(-1, features)
        return lax.dot_general(x, grad, rows, precision)[None, None]
    growth = math.prod(grad.shape[1:3]) - math.prod(x.shape[1:3])
    if plain and (growth > 0 or (growth == 0 and features <= channels)):
        # The smaller picture is the kernel: a kernel larger than its picture is slow. Of equal ones
        # it is the one with more channels, because Eigen rearranges the other.
        borders = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(window, pads, strict=True)]
        pictures, kernel = grad.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3)
        result = _in_order(pictures, kernel, (1, 1), borders, precision)
        return jnp.flip(result, (1, 2)).transpose(1, 2, 3, 0)
    # Rows that no window reads are cut off: XLA would give a negative padding another order.
    reach = [
        (pixels - 1) * s + k - low
        for pixels, s, k, (low, _) in zip(grad.shape[1:3], strides, window, pads, strict=True)
    ]
    x = x[:, : reach[0], : reach[1]]
    borders = [
        (low, max(r - pixels, 0))
        for r, pixels, (low, _) in zip(reach, x.shape[1:3], pads, strict=True)
    ]
    pictures, kernel = x.transpose(3, 1, 2, 0), grad.transpose(1, 2, 0, 3)
    result = _in_order(pictures, kernel, (1, 1), borders, precision, strides)
    return result.transpose(1, 2, 0, 3)


def _in_order(x, kernel, strides, pads, precision, kernel_dilation=None):
    return lax.conv_general_dilated(
        x, kernel, strides, pads, rhs_dilation=kernel_dilation, dimension_numbers=DIMENSIONS,
        precision=precision,
    )  # fmt: skip


def _split_taps(kernel, strides):
    """Returns a kernel, extended by zeros to `(n s, m t, C, f)`, as `(n, s, m, t, C, f)`."""
    height, width, channels, features = kernel.shape
    s, t = strides
    n, m = -(-height // s), -(-width // t)
    kernel = jnp.pad(kernel, ((0, n * s - height), (0, m * t - width), (0, 0), (0, 0)))
    return kernel.reshape(n, s, m, t, channels, features)
