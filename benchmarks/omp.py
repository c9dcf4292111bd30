"""Time of OMP in several libraries; every result is checked against float64 before timing."""

import numpy as np

from benchmarks import libraries
from benchmarks.problems import PROBLEMS, is_patch_width, size_name
from benchmarks.timing import first_call, median_times, number, print_table

CHECKED = 256  # signals of a result that are compared with float64


def omp_table(options):
    """Prints the times at every size and kind of dictionary, and geometric means of the ratios."""
    rows, ratios = [], {}
    for kind in options.dictionaries:
        for size in options.sizes:
            if kind == "photo" and not is_patch_width(size[0]):
                continue
            times, same, seconds = measure(kind, size, options.rounds)
            for name, ms in times.items():
                ratios.setdefault(name, []).append(ms / times["omp"])
            rows.append([
                size_name(size), kind, *map(number, times.values()),
                *(f"{ratios[name][-1]:.2f}" for name in times if name == "SPAMS"),
                f"{100 * same:.1f}%", f"{seconds:.1f}",
            ])  # fmt: skip
    header = ["d, m, k, n", "dictionary", *(f"{name}, ms" for name in ratios)]
    header += ["SPAMS / omp"] if "SPAMS" in ratios else []
    header += ["supports as in float64", "compile, s"]
    print_table("Orthogonal matching pursuit", header, rows)
    for name, each in ratios.items():
        if name not in ("omp", "omp, ols"):
            mean = np.exp(np.mean(np.log(each)))
            print(f"\n{name} takes {mean:.2f} times as long as `omp` (geometric mean; least "
                  f"{min(each):.2f}).")  # fmt: skip


def measure(kind, size, rounds):
    """Returns milliseconds by name, the share of supports equal to float64's, compile seconds."""
    d, m, k, n = size
    signals, atoms = PROBLEMS[kind](d, m, n)
    supports, errors = float64_omp(signals[:CHECKED], atoms, k)
    made, runs = {}, {}
    entries = libraries.omp_rows()
    seconds = first_call(lambda: made.update(omp=entries["omp"](signals, atoms, k)))
    for name, make in entries.items():
        runs[name], approximate = made.get(name) or make(signals, atoms, k)
        code = runs[name]()
        check(name, np.asarray(approximate(code)), signals, errors)
        if name == "omp":
            same = same_supports(code, supports)
    times = median_times(runs, rounds=rounds)
    if "scikit-learn" in times:
        times["scikit-learn"] *= max(1, n / libraries.SCIKIT_LEARN_SIGNALS)
    return times, same, seconds


def float64_omp(signals, atoms, k):
    """Returns supports (sets) and squared errors of the plain algorithm in float64."""
    signals, atoms = np.float64(signals), np.float64(atoms)
    residuals, supports = signals.copy(), [[] for _ in signals]
    for _ in range(min(k, signals.shape[1])):
        best = np.argmax(np.abs(residuals @ atoms.T), 1)
        for i, y in enumerate(signals):
            if np.linalg.norm(residuals[i]) <= 1e-9 * np.linalg.norm(y):
                continue
            supports[i].append(int(best[i]))
            chosen = atoms[supports[i]].T
            residuals[i] = y - chosen @ np.linalg.lstsq(chosen, y, rcond=None)[0]
    return [set(support) for support in supports], np.sum(residuals**2, -1)


def check(name, approximation, signals, errors):
    """Stops the benchmark if a result is worse than float64's by more than float32's rounding."""
    signals = np.float64(signals[:CHECKED])
    found = np.sum((signals - np.float64(approximation[:CHECKED])) ** 2, -1).mean()
    allowed = 1.01 * errors.mean() + 1e-6 * np.sum(signals**2, -1).mean()
    if found > allowed:
        raise SystemExit(
            f"{name} leaves a squared error of {found:.4g}, float64 {errors.mean():.4g}."
        )


def same_supports(code, supports):
    """Returns the share of signals that have the support found in float64."""
    indices, used = np.asarray(code.indices), np.asarray(code.coefficients) != 0
    pairs = zip(indices, used, supports, strict=False)
    return np.mean([set(i[u]) == support for i, u, support in pairs])
