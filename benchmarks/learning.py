"""Time of the other parts of sparse coding: the coders, the nearest atom, a K-SVD sweep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.libraries import ours
from benchmarks.omp import CHECKED
from benchmarks.problems import PROBLEMS, photo_patches, random_problem, size_name, unit
from benchmarks.timing import installed, median_times, number, print_table
from laser_jax import sparse

CODERS = {
    name: ours(getattr(sparse, name))
    for name in ("omp", "gradient_pursuit", "matching_pursuit", "iterative_hard_thresholding",
                 "top_k")
} | {"omp, ols": ours(sparse.omp, selection="ols")}  # fmt: skip
SIZE = (64, 512, 8, 8192)  # of coders and sweeps


def coders_table(options):
    """Prints time and squared error of each coder."""
    d, m, k, n = SIZE
    signals, atoms = PROBLEMS[options.kind](d, m, n)
    runs, errors = {}, {}
    for name, make in CODERS.items():
        runs[name], approximate = make(signals, atoms, k)
        rest = signals - np.asarray(approximate(runs[name]()))
        errors[name] = np.sum(rest**2) / np.sum(signals**2)
    times = median_times(runs, rounds=options.rounds)
    print_table(
        f"The coders on {options.signals} ({size_name(SIZE)})",
        ["coder", "ms", "squared error left"],
        [[name, number(times[name]), f"{100 * errors[name]:.2f}%"] for name in times],
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
