import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from absl import app

from benchmarks import constraints, learning, libraries, omp, problems, sparse
from laser_jax.sparse import decode
from laser_jax.sparse import omp as pursuit


@pytest.mark.parametrize("d", [3, 16, 256])
@pytest.mark.parametrize("kind", ["random", "photo"])
def test_problems_have_the_size_asked_for_and_unit_atoms(kind, d):
    signals, atoms = problems.PROBLEMS[kind](d, 40, 3000)
    assert signals.shape == (3000, d) and atoms.shape == (40, d)
    assert signals.dtype == atoms.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=-1), 1, rtol=1e-5)
    assert len(np.unique(signals, axis=0)) > 500


def test_an_answer_worse_than_float64_stops_the_benchmark():
    signals, atoms = problems.photo_problem(16, 40, 300)
    supports, errors = omp.float64_omp(signals[:256], atoms, 4)
    code = pursuit(jnp.asarray(signals), jnp.asarray(atoms), sparsity=4)
    omp.check("omp", np.asarray(decode(code, atoms)), signals, errors)
    assert omp.same_supports(code, supports) > 0.99
    worse = code._replace(coefficients=1.2 * code.coefficients)
    with pytest.raises(SystemExit, match="worse leaves a squared error"):
        omp.check("worse", np.asarray(decode(worse, atoms)), signals, errors)


def test_every_row_is_timed_and_checked(capsys):
    # Photographs have no square patches of 18 pixels: only the random problem has that size.
    sizes = ((16, 40, 4, 300), (18, 40, 4, 300))
    omp.omp_table(sparse.Options(1, sizes, ("random", "photo")))
    out = capsys.readouterr().out
    rows = [line.split(" | ")[:2] for line in out.splitlines() if line.startswith("| 1")]
    names = [f"| {problems.size_name(size)}" for size in sizes]
    assert rows == [[names[0], "random"], [names[1], "random"], [names[0], "photo"]]
    assert "scikit-learn takes" in out and "SPAMS takes" in out


def test_tables_of_random_signals_need_no_photographs(monkeypatch, capsys):
    for name in ("SIZE", "REFIT_SIZE", "RATE_SIZE"):
        monkeypatch.setattr(learning, name, (16, 40, 4, 150))
    monkeypatch.setattr(problems, "photo_patches", None)
    learning.coders_table(sparse.Options(1, (), ("random",)))
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line[0].startswith("| ")}
    assert {"| omp", "| least_squares", "| rate_distortion_pursuit"} <= set(rows)
    milliseconds, seconds, megabytes = map(float, rows["| omp"][:3])
    assert milliseconds > 0 and seconds > 0 and megabytes >= 0


@pytest.mark.slow
def test_constraints_have_rows_and_lasso_is_compared_with_both_libraries(monkeypatch, capsys):
    monkeypatch.setattr(constraints, "SIZE", (16, 40, 4, 400))
    monkeypatch.setattr(constraints, "LASSO_SIGNALS", 16)
    monkeypatch.setattr(constraints, "PENALTIES", (0.1,))
    monkeypatch.setattr(constraints, "ITERATIONS", (200,))
    constraints.constraints_table(sparse.Options(1, (), ("random",)))
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    names = {row[0] for row in rows}
    assert {"| omp", "| nonnegative_omp", "| simultaneous_omp, groups of 8"} <= names
    solvers = {row[1]: float(row[4]) for row in rows if row[0] == "| 0.1"}
    assert len(solvers) == 3 and max(solvers.values()) < 1e-5


def test_sizes_of_gpus_can_be_chosen_on_any_backend():
    assert sparse.chosen_sizes([]) == problems.CPU_SIZES
    assert sparse.chosen_sizes(["9", "0"]) == (problems.GPU_SIZES[0], problems.CPU_SIZES[0])
    with pytest.raises(app.UsageError, match="13 not in 0 to 12"):
        sparse.chosen_sizes(["13"])


def test_cpu_libraries_have_no_row_on_a_gpu(monkeypatch):
    assert {"omp", "omp, ols", "SPAMS", "scikit-learn"} <= set(libraries.omp_rows())
    monkeypatch.setattr(libraries.jax, "default_backend", lambda: "gpu")
    assert not {"SPAMS", "scikit-learn"} & set(libraries.omp_rows())


def test_importing_the_benchmark_loads_no_data_package():
    code = (
        "import sys, benchmarks.sparse as _; "
        "print({'tensorflow_datasets', 'flax', 'sklearn', 'skimage', 'PIL'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert found.stdout.strip() == "set()", found.stdout + found.stderr
