"""Coding with hidden entries, with signs, in groups and by an L1 penalty: time, error, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problems import photo_patches, random_problem, size_name
from benchmarks.timing import compiled, installed, median_times, number, print_table
from laser_jax import sparse

SIZE = (64, 512, 8, 8192)  # d, m, k, n
GROUP = 8  # signals that share a support
LASSO_SIGNALS = 512
PENALTIES, ITERATIONS = (0.1, 0.02), (200, 1000, 3000)
_MEMORY = "temporary memory, MB"


def constraints_table(options):
    """Prints the coders beside `omp`, then `lasso` beside scikit-learn and SPAMS."""
    d, m, k, n = SIZE
    if options.kind == "photo":
        train, signals = (photo_patches(split, d, n) for split in ("train", "test"))
    else:
        signals, _ = random_problem(d, m, 2 * n)
        train, signals = signals[:n], signals[n:]
    fit = sparse.fit_dictionary(
        jnp.asarray(train), num_atoms=m, sparsity=k, iterations=20, key=jax.random.key(0)
    )
    atoms = np.asarray(fit.dictionary)
    print_coders(options, signals, atoms)
    print_lasso(options, signals[:LASSO_SIGNALS], atoms)


def print_coders(options, signals, atoms):
    """Prints each coder's time, squared error and temporary memory beside those of `omp`."""
    k = SIZE[2]
    seen = np.random.default_rng(0).random(signals.shape) < 0.7
    groups = signals[: len(signals) // GROUP * GROUP].reshape(-1, GROUP, signals.shape[-1])
    # Name -> coder, signals, and the entries that count.
    rows = {
        "omp": (sparse.omp, signals, None),
        "omp, 30% of the entries hidden": (
            lambda y, d, sparsity: sparse.omp(y, d, sparsity=sparsity, mask=seen), signals, seen,
        ),
        "nonnegative_omp": (sparse.nonnegative_omp, signals, None),
        f"simultaneous_omp, groups of {GROUP}": (sparse.simultaneous_omp, groups, None),
    }  # fmt: skip
    runs, left, memory = {}, {}, {}
    for name, (coder, y, mask) in rows.items():
        program = compiled(functools.partial(coder, sparsity=k), y, atoms)
        runs[name], memory[name] = program.run, program.megabytes
        approximation = sparse.decode(runs[name](), jnp.asarray(atoms))
        rest = (y - np.asarray(approximation)) * (1 if mask is None else mask)
        left[name] = np.sum(rest**2) / np.sum((y if mask is None else mask * y) ** 2)
    times = median_times(runs, rounds=options.rounds)
    print_table(
        f"Weights, signs and groups on {options.signals} ({size_name(SIZE)})",
        ["coder", "ms", "/ omp", "squared error left", _MEMORY],
        [
            [name, number(times[name]), f"{times[name] / times['omp']:.2f}",
             f"{100 * left[name]:.2f}%", number(memory[name])]
            for name in times
        ],
    )  # fmt: skip


def print_lasso(options, signals, atoms):
    """Prints how far above the optimum `lasso` stays, and the time of all."""
    rows = []
    for penalty in PENALTIES:
        runs, memory = {}, {}
        for count in ITERATIONS:
            name = f"lasso, {count} iterations"
            coder = functools.partial(sparse.lasso, penalty=penalty, iterations=count)
            program = compiled(coder, signals, atoms)
            runs[name], memory[name] = program.run, program.megabytes
        if installed("spams"):
            runs["SPAMS, homotopy"] = functools.partial(_spams, signals, atoms, penalty)
        if installed("sklearn"):
            runs["scikit-learn, coordinate descent"] = functools.partial(
                _scikit_learn, signals, atoms, penalty
            )
        costs = {name: _objective(signals, atoms, run(), penalty) for name, run in runs.items()}
        best = np.min(list(costs.values()), axis=0)
        times = median_times(runs, rounds=options.rounds)
        for name, cost in costs.items():
            above = cost / best - 1
            rows.append([
                penalty, name, number(times[name]), f"{np.mean(above > 1e-5):.1%}",
                f"{above.max():.1e}", number(memory.get(name)),
            ])  # fmt: skip
    print_table(
        f"The lasso on {options.signals} ({len(signals)} signals, {len(atoms)} atoms)",
        ["penalty", "solver", "ms", "signals more than 1e-5 above the least", "worst", _MEMORY],
        rows,
    )


def _objective(signals, atoms, x, penalty):
    x = np.float64(x)
    rest = signals - x @ np.float64(atoms)
    return np.sum(rest**2, -1) / 2 + penalty * np.sum(np.abs(x), -1)


def _spams(signals, atoms, penalty):
    import spams

    columns = (np.asfortranarray(x.T, np.float64) for x in (signals, atoms))
    return np.asarray(spams.lasso(*columns, lambda1=penalty, mode=2).todense()).T


def _scikit_learn(signals, atoms, penalty):
    from sklearn.linear_model import Lasso

    # Its error is divided by the width.
    y, d = np.float64(signals), np.asfortranarray(atoms.T, np.float64)
    model = Lasso(
        alpha=penalty / len(d), fit_intercept=False, tol=1e-8, max_iter=20000, precompute=d.T @ d
    )
    return np.stack([model.fit(d, signal).coef_ for signal in y])
