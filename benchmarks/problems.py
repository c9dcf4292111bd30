"""Signals and dictionaries to code: Gaussian, or patches of photographs."""

import numpy as np

# (d, m, k, n): signal width, atoms, sparsity, signals.
CPU_SIZES = (
    (3, 16, 3, 65536),
    (16, 512, 4, 32768),
    (64, 512, 8, 8192),
    (64, 512, 16, 8192),
    (64, 1024, 12, 8192),
    (256, 1024, 8, 2048),
    (256, 1024, 32, 1250),
    (256, 2048, 2, 8192),
    (256, 4096, 8, 4096),
)
GPU_SIZES = (
    (128, 4096, 8, 65536),
    (256, 1024, 32, 5000),
    (512, 2048, 64, 5000),
    (2304, 16384, 32, 8192),
)
SIZES = CPU_SIZES + GPU_SIZES


def size_name(size):
    return ", ".join(map(str, size))


def random_problem(d, m, n):
    """Returns Gaussian signals `(n, d)` and unit-norm atoms `(m, d)`, float32."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)).astype(np.float32), unit(rng.normal(size=(m, d)))


def photo_problem(d, m, n):
    """Returns patches of photographs, their means subtracted; atoms are patches of others."""
    return photo_patches("test", d, n), unit(photo_patches("train", d, m))


PROBLEMS = {"random": random_problem, "photo": photo_problem}


def is_patch_width(d):
    """Returns whether signals of this width are patches: square gray ones, or single RGB pixels."""
    return d == 3 or round(d**0.5) ** 2 == d


def photo_patches(split, d, count):
    """Returns `(count, d)` gray patches of a split's photographs in [0, 1], flat ones left out.

    At d = 3 they are RGB pixels.
    """
    # Needs the data packages; machines that run only random problems have none.
    from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph

    rng, found = np.random.default_rng(0), []
    side = 1 if d == 3 else round(d**0.5)
    for name in PHOTOGRAPHS[split]:
        image = read_photograph(name) / 255
        image = image - image.mean((0, 1)) if d == 3 else image.mean(-1)
        windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
        windows = windows.reshape(*windows.shape[:2], d)
        rows, columns = (rng.integers(size, size=4 * count) for size in windows.shape[:2])
        cut = windows[rows, columns]
        cut = cut if d == 3 else cut - cut.mean(-1, keepdims=True)
        found.append(cut[np.linalg.norm(cut, axis=-1) > 0.01 * d**0.5])
    return rng.permutation(np.concatenate(found))[:count].astype(np.float32)


def unit(x):
    """Returns rows scaled to norm 1, float32."""
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
