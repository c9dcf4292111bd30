"""Sparse coding beside other libraries: time, compile time and memory, every answer checked first.

    python -m experiments.benchmark_sparse [--rounds=9] [--sizes=0,2] [--tables=omp --tables=vq]

Prints Markdown tables. Libraries that are not installed are left out; PyTorch (`pip install
torch`) is not in the requirements. In each table all rows run in turn, round after round, after
compilation, and times are medians, so that a machine that slows down slows all of them. Beside
this library stand SPAMS (C++, by the error an atom leaves), scikit-learn (a loop over signals in
Cython: timed on 1,000 signals and scaled to all), PyTorch (`torch_baselines`), and
orthogonal-matching-pursuit-gpu.
"""

import functools
import importlib.util
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.timing import median_times
from laser_jax import sparse
from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph

TABLES = ("omp", "memory", "coders", "vq", "ksvd")

ROUNDS = flags.DEFINE_integer("rounds", 9, "Rounds; a row slower than a second gets one.")
SIZES = flags.DEFINE_list("sizes", [], "Places in the list of sizes; all by default.")
DICTIONARIES = flags.DEFINE_multi_enum(
    "dictionaries", ["random", "photo"], ["random", "photo"], "Where signals and atoms come from."
)
CHOSEN = flags.DEFINE_multi_enum("tables", list(TABLES), TABLES, "Which tables to make.")
MEMORY_OF = flags.DEFINE_string("memory_of", "", "Used by the memory table: one row, one size.")

# (d, m, k, n): signal width, atoms, sparsity, signals.
CPU_SIZES = (
    (3, 16, 3, 65536),
    (16, 512, 4, 32768),
    (64, 512, 8, 8192),
    (64, 512, 16, 8192),
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
CHECKED = 256  # signals of an answer that are compared with float64


# Problems.


def random_problem(d, m, n):
    """Gaussian signals `(n, d)` and unit-norm atoms `(m, d)`, float32."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)).astype(np.float32), unit(rng.normal(size=(m, d)))


def photo_problem(d, m, n):
    """Patches of photographs, the mean removed; the atoms are patches of other photographs."""
    return patches(PHOTOGRAPHS["test"], d, n), unit(patches(PHOTOGRAPHS["train"], d, m))


def patches(photographs, d, count):
    """Square grey patches of `d` pixels in [0, 1], flat ones left out; colours if d is 3."""
    rng, found = np.random.default_rng(0), []
    side = round(d**0.5)
    for name in photographs:
        image = read_photograph(name) / 255
        image = image - image.mean((0, 1)) if d == 3 else image.mean(-1)
        width = 1 if d == 3 else side
        windows = np.lib.stride_tricks.sliding_window_view(image, (width, width), axis=(0, 1))
        windows = windows.reshape(*windows.shape[:2], d)
        picks = [rng.integers(size, size=4 * count) for size in windows.shape[:2]]
        cut = windows[picks[0], picks[1]]
        cut = cut if d == 3 else cut - cut.mean(-1, keepdims=True)
        found.append(cut[np.linalg.norm(cut, axis=-1) > 0.01 * d**0.5])
    return rng.permutation(np.concatenate(found))[:count].astype(np.float32)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


PROBLEMS = {"random": random_problem, "photo": photo_problem}


# Contestants: (signals, atoms, sparsity) -> a function that codes, and one that gives the
# approximations `(n, d)` of what that returns.


def ours(coder, **options):
    def make(signals, atoms, k):
        y, d = jnp.asarray(signals), jnp.asarray(atoms)
        run = jax.jit(functools.partial(coder, sparsity=k, **options)).lower(y, d).compile()
        return lambda: jax.block_until_ready(run(y, d)), lambda code: sparse.decode(code, d)

    return make


def spams_omp(signals, atoms, k):
    import spams

    y, d = np.asfortranarray(signals.T), np.asfortranarray(atoms.T)
    run = functools.partial(spams.omp, y, d, L=k, eps=0.0, lambda1=0.0)
    return run, lambda code: (d @ code).T


def scikit_learn_omp(signals, atoms, k):
    from sklearn.linear_model import orthogonal_mp_gram

    signals = signals[:1000]

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of signals that need fewer atoms
            return orthogonal_mp_gram(atoms @ atoms.T, atoms @ signals.T, n_nonzero_coefs=k)

    return run, lambda code: (atoms.T @ code).T


def torch_omp(signals, atoms, k):
    import torch

    from experiments import torch_baselines

    y, d = torch_baselines.tensor(signals), torch_baselines.tensor(atoms)

    def run():
        with torch.no_grad():
            return torch_baselines.synchronised(torch_baselines.omp(y, d, k))

    return run, lambda code: torch.einsum("nk,nkd->nd", code[1], d[code[0]]).cpu()


def omp_gpu(signals, atoms, k):
    from orthogonal_matching_pursuit_gpu import run_omp

    from experiments.torch_baselines import synchronised, tensor

    y, d = tensor(signals), tensor(atoms)

    def run():
        return synchronised(run_omp(d.T, y, k, normalize=False, fit_intercept=False))

    return run, lambda code: (code @ d).cpu()


OTHERS = {
    "SPAMS": ("spams", spams_omp),
    "scikit-learn": ("sklearn", scikit_learn_omp),
    "PyTorch": ("torch", torch_omp),
    "omp-gpu": ("orthogonal_matching_pursuit_gpu", omp_gpu),
}
OMP_ROWS = {"omp": ours(sparse.omp), "omp, ols": ours(sparse.omp, selection="ols")} | {
    name: make for name, (package, make) in OTHERS.items() if importlib.util.find_spec(package)
}


# Checks.


def float64_omp(signals, atoms, k):
    """Supports (sets) and squared errors by the plain algorithm, one signal after another."""
    supports, errors = [], []
    for y in np.float64(signals):
        residual, support = y, []
        for _ in range(min(k, len(y))):
            if np.linalg.norm(residual) <= 1e-9 * np.linalg.norm(y):
                break
            support.append(int(np.argmax(np.abs(atoms @ residual))))
            chosen = np.float64(atoms[support]).T
            residual = y - chosen @ np.linalg.lstsq(chosen, y, rcond=None)[0]
        supports.append(set(support))
        errors.append(residual @ residual)
    return supports, np.array(errors)


def check(name, approximation, signals, errors):
    """Stops the benchmark if an answer is worse than float64's by more than float32 can be."""
    signals = np.float64(signals[:CHECKED])
    found = np.sum((signals - np.float64(approximation[:CHECKED])) ** 2, -1).mean()
    allowed = 1.01 * errors.mean() + 1e-6 * np.sum(signals**2, -1).mean()
    if found > allowed:
        raise SystemExit(
            f"{name} leaves a squared error of {found:.4g}, float64 {errors.mean():.4g}"
        )


def same_supports(code, supports):
    """Share of signals with the support that float64 found."""
    indices, used = np.asarray(code.indices), np.asarray(code.coefficients) != 0
    pairs = zip(indices, used, supports, strict=False)
    return np.mean([set(i[u]) == support for i, u, support in pairs])


# Measurement.


def print_table(title, header, rows):
    print(f"\n### {title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def number(x):
    """Three significant digits, no exponent."""
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def sizes():
    """The chosen sizes, on an accelerator the large ones too."""
    known = CPU_SIZES + (GPU_SIZES if jax.default_backend() != "cpu" else ())
    return [known[int(place)] for place in SIZES.value] or known


def size_name(d, m, k, n):
    return f"{d}, {m}, {k}, {n}"


# Tables.


def omp_table():
    rows, ratios = [], {name: [] for name in OMP_ROWS}
    for kind in DICTIONARIES.value:
        for d, m, k, n in sizes():
            signals, atoms = PROBLEMS[kind](d, m, n)
            supports, errors = float64_omp(signals[:CHECKED], atoms, k)
            runs, compile_time = {}, 0.0
            for name, make in OMP_ROWS.items():
                start = time.perf_counter()
                runs[name], approximate = make(signals, atoms, k)
                compile_time = compile_time or time.perf_counter() - start
                code = runs[name]()
                check(name, np.asarray(approximate(code)), signals, errors)
                if name == "omp":
                    same = same_supports(code, supports)
            times = median_times(runs, rounds=ROUNDS.value)
            if "scikit-learn" in times:
                times["scikit-learn"] *= max(1, n / 1000)
            for name in OMP_ROWS:
                ratios[name].append(times[name] / times["omp"])
            rows.append([
                size_name(d, m, k, n), kind, *(number(t) for t in times.values()),
                *(f"{ratios[name][-1]:.2f}" for name in OMP_ROWS if name == "SPAMS"),
                f"{100 * same:.1f}%", f"{compile_time:.1f}",
            ])  # fmt: skip
    header = ["d, m, k, n", "dictionary", *(f"{name}, ms" for name in OMP_ROWS)]
    header += ["SPAMS / omp"] if "SPAMS" in OMP_ROWS else []
    header += ["supports as in float64", "compile, s"]
    print_table("Orthogonal matching pursuit", header, rows)
    means = {name: np.exp(np.mean(np.log(r))) for name, r in ratios.items() if name in OTHERS}
    worst = {name: min(r) for name, r in ratios.items() if name in OTHERS}
    for name, mean in means.items():
        print(f"\n{name} takes {mean:.2f} times as long as `omp` (geometric mean; least "
              f"{worst[name]:.2f}).")  # fmt: skip


def memory_table():
    rows = []
    for place, size in enumerate(sizes()):
        place = SIZES.value[place] if SIZES.value else place
        row = [size_name(*size)]
        for name in OMP_ROWS:
            command = [sys.executable, "-m", "experiments.benchmark_sparse"]
            command += [f"--memory_of={name}", f"--sizes={place}"]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            row.append(run.stdout.strip().splitlines()[-1])
        rows.append(row)
    print_table(
        "Memory a call takes at its peak, MB (a process of its own each)",
        ["d, m, k, n", *OMP_ROWS],
        rows,
    )


def print_memory(name):
    """Prints how far a call raises the process's peak of resident memory, in MB. Linux."""
    ((d, m, k, n),) = sizes()
    signals, atoms = random_problem(d, m, n)
    run, _ = OMP_ROWS[name](signals, atoms, k)
    before = _memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again from here
    run()
    print(f"{(_memory('VmHWM') - before) / 1024:.0f}")


def _memory(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def coders_table():
    d, m, k, n = 64, 512, 8, 8192
    signals, atoms = photo_problem(d, m, n)
    names = ("omp", "gradient_pursuit", "matching_pursuit", "iterative_hard_thresholding", "top_k")
    makes = {name: ours(getattr(sparse, name)) for name in names}
    makes["omp, ols"] = ours(sparse.omp, selection="ols")
    runs, errors = {}, {}
    for name, make in makes.items():
        runs[name], approximate = make(signals, atoms, k)
        rest = signals - np.asarray(approximate(runs[name]()))
        errors[name] = np.sum(rest**2) / np.sum(signals**2)
    times = median_times(runs, rounds=ROUNDS.value)
    print_table(
        f"The coders on photographs ({size_name(d, m, k, n)})",
        ["coder", "ms", "squared error left"],
        [[name, number(times[name]), f"{100 * errors[name]:.2f}%"] for name in times],
    )


def vq_table():
    have_torch = importlib.util.find_spec("torch") is not None
    rows = []
    for d, m, n in ((64, 512, 65536), *((3, 16, b * 128 * 128) for b in (1, 4, 8, 16))):
        signals, atoms = photo_problem(d, m, n)
        y, a = jnp.asarray(signals), jnp.asarray(atoms)
        runs = {"nearest": lambda y=y, a=a: jax.block_until_ready(sparse.nearest_atom(y, a))}
        found = np.asarray(runs["nearest"]().indices)[:CHECKED, 0]
        distances = np.sum((np.float64(signals[:CHECKED, None]) - atoms[None]) ** 2, -1)
        if not np.allclose(distances[np.arange(CHECKED), found], distances.min(-1), rtol=1e-5):
            raise SystemExit("nearest_atom is not the nearest in float64")
        if have_torch:
            runs["torch"] = _torch_nearest(signals, atoms)
        if d == 3:
            runs["pursuit"], _ = ours(sparse.matching_pursuit)(signals, atoms, 4)
        for run in runs.values():
            run()
        times = median_times(runs, rounds=ROUNDS.value)
        pursuit = times.get("pursuit")
        rows.append([
            f"{d}, {m}, {n}", number(times["nearest"]),
            number(times["torch"]) if have_torch else "",
            number(pursuit) if pursuit else "",
            f"{pursuit / times['nearest']:.2f}" if pursuit else "",
        ])  # fmt: skip
    header = ["d, m, n", "nearest_atom, ms", "PyTorch cdist + argmin, ms"]
    header += ["matching_pursuit, k = 4, ms", "pursuit / nearest_atom"]
    print_table("Vector quantisation, and sparse coding beside it", header, rows)


def _torch_nearest(signals, atoms):
    import torch

    from experiments.torch_baselines import synchronised, tensor

    y, d = tensor(signals), tensor(atoms)
    return lambda: synchronised(torch.cdist(y, d).argmin(1))


def ksvd_table():
    d, m, k, n = 64, 512, 8, 8192
    train, test = patches(PHOTOGRAPHS["train"], d, n), patches(PHOTOGRAPHS["test"], d, 4096)
    atoms = unit(patches(PHOTOGRAPHS["validation"], d, m))
    y, dictionary = jnp.asarray(train), jnp.asarray(atoms)
    code = sparse.omp(y, dictionary, sparsity=k)
    runs, held_out = {}, {}
    for method in ("exact", "approximate", "parallel"):
        runs[method] = functools.partial(_sweep, y, dictionary, code, method)
        fit = sparse.fit_dictionary(
            y, num_atoms=m, sparsity=k, iterations=30, key=jax.random.key(0),
            method=method,
        )  # fmt: skip
        left = test - sparse.decode(sparse.omp(test, fit.dictionary, sparsity=k), fit.dictionary)
        held_out[method] = float(jnp.sum(left**2))
    if importlib.util.find_spec("torch"):
        runs["PyTorch loop"] = _torch_sweep(train, atoms, code)
    for run in runs.values():
        run()
    times = median_times(runs, rounds=ROUNDS.value)
    rows = []
    for name in times:
        relative = f"{held_out[name] / held_out['exact']:.4f}" if name in held_out else ""
        rows.append([name, number(times[name]), relative])
    print_table(
        f"A K-SVD sweep on photographs ({size_name(d, m, k, n)})",
        ["method", "ms", "held-out error after 30 iterations / exact"],
        rows,
    )


def _sweep(signals, dictionary, code, method):
    return jax.block_until_ready(sparse.ksvd_sweep(signals, dictionary, code, method=method))


def _torch_sweep(signals, atoms, code):
    from experiments.torch_baselines import ksvd_sweep, synchronised, tensor

    y, *start = (tensor(x) for x in (signals, atoms, *code))
    start[1] = start[1].long()
    return lambda: synchronised(ksvd_sweep(y, *(x.clone() for x in start)))


def main(_):
    if MEMORY_OF.value:
        print_memory(MEMORY_OF.value)
        return
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} ({device.device_kind}), medians of "
          f"{ROUNDS.value} rounds, float32")  # fmt: skip
    tables = dict(
        zip(TABLES, (omp_table, memory_table, coders_table, vq_table, ksvd_table), strict=True)
    )
    for name in CHOSEN.value:
        tables[name]()


if __name__ == "__main__":
    app.run(main)
