"""Convolutions and dense layers, with gradients that XLA for CPUs computes fast.

XLA for CPUs gives a convolution to Eigen only if its axes have the order batch, space, features.
It rearranges others, such as those of JAX's gradients, at a cost, and not at all inside loops:
there it computes one scalar after the other, forty times as slowly (jaxlib 0.10.2). On CPUs the
gradients are therefore given here, in that order.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolve(x, kernel, strides, padding, **options):
    """Returns `lax.conv_general_dilated` of `(b, H, W, C)` and `(kh, kw, C, features)`."""
    strides, window = tuple(strides), kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    dilated = any(max(options.get(f"{side}_dilation") or [1]) > 1 for side in ("lhs", "rhs"))
    grouped = options.get("feature_group_count", 1) > 1
    wide = any(max(pads) >= size for pads, size in zip(padding, window, strict=True))
    if jax.default_backend() != "cpu" or dilated or grouped or wide:
        options = {"dimension_numbers": DIMENSIONS, **options}
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    options = {name: options.get(name) for name in ("precision", "preferred_element_type")}
    few_channels = max(strides) > 1 and x.shape[-1] < 16  # Eigen copies them one by one
    low, size = [pair[0] for pair in padding], x.shape[1:3]
    return with_gradients(
        functools.partial(
            convolve_cells if few_channels else _convolve, strides=strides, pads=padding, **options
        ),
        lambda grad, x, kernel: convolve_transpose(grad, kernel, strides, low, size, **options),
        lambda grad, x, kernel: kernel_gradient(grad, x, window, strides, padding, **options),
    )(x, kernel)


def multiply_rows(x, kernel, dimension_numbers, **options):
    """Returns `lax.dot_general` of `(..., C)` and `(C, features)`, as a product of two matrices.

    XLA for CPUs copies the gradient of more axes before it multiplies.
    """
    del dimension_numbers  # Flax's: the last axis of x and the first of the kernel
    rows = x.reshape(-1, x.shape[-1])
    y = lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


Conv = functools.partial(nn.Conv, conv_general_dilated=convolve)
Dense = functools.partial(nn.Dense, dot_general=multiply_rows)


def relu(x):
    """Returns max(x, 0) in a form that XLA computes once.

    XLA for CPUs computes a maximum with a constant again for each use. Where a use reads the pixels
    in another order, that takes several times as long as a copy.
    """
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


def with_gradients(apply, grad_x, grad_kernel):
    """Returns a bilinear function `apply(x, kernel)` with other gradients on CPUs.

    Args:
      apply: the function.
      grad_x: maps the gradient of the result, x and the kernel to the gradient of x.
      grad_kernel: maps them to that of the kernel.
    """
    if jax.default_backend() != "cpu":
        return apply
    function = jax.custom_jvp(apply)

    # Not `custom_vjp`: with linear maps and their transposes, forward mode works too.
    @functools.partial(function.defjvp, symbolic_zeros=True)
    def _(primals, tangents):
        y = function(*primals)
        terms = [
            jax.linear_transpose(lambda grad, to=to: to(grad, *primals), y)(tangent)[0]
            for to, tangent in zip((grad_x, grad_kernel), tangents, strict=True)
            if not isinstance(tangent, SymbolicZero)
        ]
        return y, sum(terms)

    return function


def convolve_cells(x, kernel, strides, pads, **options):
    """Returns a strided convolution as one of stride 1, of cells of pixels (space to depth).

    A cell of a stride's size holds its pixels as channels.
    """
    b, *size, channels = x.shape
    taps = _split_taps(kernel, strides)
    n, s, m, t, _, features = taps.shape
    count = [
        (pixels + low + high - k) // stride + taps_of_cells
        for pixels, (low, high), k, stride, taps_of_cells in zip(
            size, pads, kernel.shape, strides, (n, m), strict=False
        )
    ]
    edges = [
        (low, cells * stride - low - pixels, 0)
        for pixels, (low, _), stride, cells in zip(size, pads, strides, count, strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    x = x.reshape(b, count[0], s, count[1], t, channels).transpose(0, 1, 3, 2, 4, 5)
    taps = taps.transpose(0, 2, 1, 3, 4, 5).reshape(n, m, -1, features)
    return _convolve(x.reshape(b, *count, -1), taps, (1, 1), ((0, 0), (0, 0)), **options)


def convolve_transpose(x, kernel, strides, low, size, **options):
    """Returns the transpose of a convolution, computed in cells as `convolve_cells`.

    Args:
      x: what the convolution has as result, `(b, h, w, features)`.
      kernel: of the convolution, `(kh, kw, channels, features)`.
      strides: of the convolution.
      low: its padding before the first row and column.
      size: height and width of the result, the convolution's argument.
      **options: of `lax.conv_general_dilated`.
    """
    taps = _split_taps(kernel, strides)
    n, s, m, t, channels, features = taps.shape
    # Cell i + j gets pixel i times the taps j.
    taps = jnp.flip(taps, (0, 2)).transpose(0, 2, 5, 1, 3, 4).reshape(n, m, features, -1)
    first = [pad // stride for pad, stride in zip(low, strides, strict=True)]
    end = [-(-(a + b) // stride) for a, b, stride in zip(low, size, strides, strict=True)]
    pads = [
        (k - 1 - a, b - pixels)
        for k, a, b, pixels in zip((n, m), first, end, x.shape[1:3], strict=True)
    ]
    x = _convolve(x, taps, (1, 1), pads, **options)
    b, height, width, _ = x.shape
    x = x.reshape(b, height, width, s, t, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(b, height * s, width * t, channels)
    top, left = (pad % stride for pad, stride in zip(low, strides, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]


def kernel_gradient(grad, x, window, strides, pads, **options):
    """Returns the gradient of a kernel; its sums over pictures become those over channels.

    Args:
      grad: the gradient of the result, `(b, h, w, features)`.
      x: what the kernel is applied to, `(b, H, W, channels)`.
      window: height and width of the kernel.
      strides: of the convolution.
      pads: of the convolution.
      **options: of `lax.conv_general_dilated`.
    """
    channels, features = x.shape[-1], grad.shape[-1]
    plain = strides == (1, 1)
    if plain and window == (1, 1):
        rows = (((0,), (0,)), ((), ()))
        x, grad = x.reshape(-1, channels), grad.reshape(-1, features)
        return lax.dot_general(x, grad, rows, **options)[None, None]
    growth = grad.shape[1] - x.shape[1]
    if plain and (growth > 0 or (growth == 0 and features <= channels)):
        # The smaller picture is the kernel: a kernel larger than its picture is slow. Of equal ones
        # it is the one with more channels, because Eigen rearranges the other.
        borders = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(window, pads, strict=True)]
        pictures, kernel = grad.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3)
        result = _convolve(pictures, kernel, (1, 1), borders, **options)
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
    result = _convolve(pictures, kernel, (1, 1), borders, rhs_dilation=strides, **options)
    return result.transpose(1, 2, 0, 3)


def _convolve(x, kernel, strides, pads, **options):
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=DIMENSIONS, **options
    )


def _split_taps(kernel, strides):
    """Returns a kernel, extended by zeros to `(n s, m t, C, f)`, as `(n, s, m, t, C, f)`."""
    height, width, channels, features = kernel.shape
    s, t = strides
    n, m = -(-height // s), -(-width // t)
    kernel = jnp.pad(kernel, ((0, n * s - height), (0, m * t - width), (0, 0), (0, 0)))
    return kernel.reshape(n, s, m, t, channels, features)
