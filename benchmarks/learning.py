"""Time of the other parts of sparse coding: the coders, the nearest atom, a K-SVD sweep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.libraries import ours
from benchmarks.omp import CHECKED
from benchmarks.problems import (
    PROBLEMS,
    is_patch_width,
    photo_patches,
    random_problem,
    size_name,
    unit,
)
from benchmarks.timing import compiled, installed, median_times, number, print_table
from laser_jax import sparse

SIZE = (64, 512, 8, 8192)  # of coders and sweeps
REFIT_SIZE = (256, 1024, 32, 1250)  # of least_squares
RATE_SIZE = (192, 2048, 64, 8192)  # of rate_distortion_pursuit
COEFFICIENT_STEP, BIT_PRICE = 0.5, 0.05  # of rate_distortion_pursuit, on Gaussian signals


def coder_rows():
    """Returns name, `(d, m, k, n)` and coder of each row."""
    plain = ("omp", "gradient_pursuit", "matching_pursuit", "iterative_hard_thresholding", "top_k")
    return [
        *((name, SIZE, getattr(sparse, name)) for name in plain),
        ("omp, ols", SIZE, functools.partial(sparse.omp, selection="ols")),
        ("least_squares", REFIT_SIZE, _refit),
        ("rate_distortion_pursuit", RATE_SIZE, _by_rate),
    ]


def coders_table(options):
    """Prints time, compile time, memory and squared error of each coder."""
    programs, lines = {}, {}
    for name, size, coder in coder_rows():
        d, m, k, n = size
        signals, atoms = PROBLEMS[options.kind if is_patch_width(d) else "random"](d, m, n)
        atoms = jnp.asarray(atoms)
        coder = functools.partial(coder, sparsity=k)
        if coder.func is _refit:
            coder = functools.partial(coder, code=sparse.omp(signals, atoms, sparsity=k))
        programs[name] = compiled(coder, signals, atoms)
        code = programs[name].run()
        if jnp.issubdtype(code.coefficients.dtype, jnp.integer):
            code = sparse.dequantize_coefficients(code, COEFFICIENT_STEP)
        rest = signals - np.asarray(sparse.decode(code, atoms))
        lines[name] = size_name(size), np.sum(rest**2) / np.sum(signals**2)
    times = median_times({name: x.run for name, x in programs.items()}, rounds=options.rounds)
    print_table(
        f"The coders on {options.signals}",
        ["coder", "ms", "compile, s", "memory, MB", "d, m, k, n", "squared error left"],
        [
            [name, number(times[name]), f"{x.seconds:.1f}", number(x.megabytes), lines[name][0],
             f"{100 * lines[name][1]:.2f}%"]
            for name, x in programs.items()
        ],
    )  # fmt: skip


def _refit(signals, atoms, sparsity, code):
    """The coefficients of a given support."""
    del sparsity
    return sparse.least_squares(signals, atoms, code)


def _by_rate(signals, atoms, sparsity):
    model = sparse.uniform_rate_model(len(atoms), sparsity=sparsity, max_level=15)
    return sparse.rate_distortion_pursuit(
        signals, atoms, model, sparsity=sparsity, step=COEFFICIENT_STEP, bit_price=BIT_PRICE
    )


def vq_table(options):
    """Prints the time of the nearest atom, beside PyTorch and a pursuit of single pixels."""
    rows = []
    for d, m, n in ((64, 512, 65536), *((3, 16, b * 128 * 128) for b in (1, 4, 8, 16))):
        signals, atoms = PROBLEMS[options.kind](d, m, n)
        runs = {"nearest": _jitted(sparse.nearest_atom, signals, atoms)}
        _check_nearest(runs["nearest"](), signals, atoms)
        if installed("torch"):
            runs["torch"] = _torch_nearest(signals, atoms)
        if d == 3:
            runs["pursuit"], _ = ours(sparse.matching_pursuit)(signals, atoms, 4)
        for run in runs.values():
            run()
        times = median_times(runs, rounds=options.rounds)
        pursuit = times.get("pursuit")
        rows.append([
            f"{d}, {m}, {n}", number(times["nearest"]), number(times.get("torch")),
            number(pursuit), f"{pursuit / times['nearest']:.2f}" if pursuit else "",
        ])  # fmt: skip
    header = ["d, m, n", "nearest_atom, ms", "PyTorch cdist + argmin, ms"]
    header += ["matching_pursuit, k = 4, ms", "pursuit / nearest_atom"]
    print_table("Vector quantisation, and sparse coding beside it", header, rows)


def _check_nearest(code, signals, atoms):
    found = np.asarray(code.indices)[:CHECKED, 0]
    distances = np.sum((np.float64(signals[:CHECKED, None]) - atoms[None]) ** 2, -1)
    if not np.allclose(distances[np.arange(CHECKED), found], distances.min(-1), rtol=1e-5):
        raise SystemExit("nearest_atom is not the nearest in float64.")


def _torch_nearest(signals, atoms):
    import torch

    from benchmarks.torch_twins import synchronised, tensor

    y, d = tensor(signals), tensor(atoms)
    return lambda: synchronised(torch.cdist(y, d).argmin(1))


def ksvd_table(options):
    """Prints the time of a sweep by each method, and what 30 iterations of it leave held out."""
    d, m, k, n = SIZE
    if options.kind == "photo":
        train, test = photo_patches("train", d, n), photo_patches("test", d, 4096)
        atoms = unit(photo_patches("validation", d, m))
    else:
        signals, atoms = random_problem(d, m, n + 4096)
        train, test = signals[:n], signals[n:]
    code = sparse.omp(jnp.asarray(train), jnp.asarray(atoms), sparsity=k)
    runs, held_out = {}, {}
    for method in ("exact", "approximate", "parallel"):
        sweep = functools.partial(sparse.ksvd_sweep, method=method)
        runs[method] = _jitted(sweep, train, atoms, code)
        fit = sparse.fit_dictionary(
            jnp.asarray(train), num_atoms=m, sparsity=k, iterations=30, key=jax.random.key(0),
            method=method,
        )  # fmt: skip
        left = test - sparse.decode(sparse.omp(test, fit.dictionary, sparsity=k), fit.dictionary)
        held_out[method] = float(jnp.sum(left**2))
    if installed("torch"):
        runs["PyTorch loop"] = _torch_sweep(train, atoms, code)
    for run in runs.values():
        run()
    times = median_times(runs, rounds=options.rounds)
    rows = []
    for name in times:
        relative = f"{held_out[name] / held_out['exact']:.4f}" if name in held_out else ""
        rows.append([name, number(times[name]), relative])
    print_table(
        f"A K-SVD sweep on {options.signals} ({size_name(SIZE)})",
        ["method", "ms", "held-out error after 30 iterations / exact"],
        rows,
    )


def _torch_sweep(signals, atoms, code):
    from benchmarks.torch_twins import ksvd_sweep, synchronised, tensor

    y, *start = (tensor(x) for x in (signals, atoms, *code))
    start[1] = start[1].long()
    return lambda: synchronised(ksvd_sweep(y, *(x.clone() for x in start)))


def _jitted(function, *arrays):
    """A function without arguments that calls `function` on arrays of JAX and waits for it."""
    arrays = jax.tree.map(jnp.asarray, arrays)
    return lambda: jax.block_until_ready(function(*arrays))
