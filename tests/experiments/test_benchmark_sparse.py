import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import benchmark_sparse as bench
from laser_jax.sparse import decode, omp


@pytest.fixture(autouse=True)
def parsed_flags():
    with flagsaver.flagsaver():
        flags.FLAGS(["benchmark_sparse"])
        yield


@pytest.mark.parametrize("d", [3, 16, 256])
@pytest.mark.parametrize("kind", ["random", "photo"])
def test_problems_have_the_size_asked_for_and_unit_atoms(kind, d):
    signals, atoms = bench.PROBLEMS[kind](d, 40, 3000)
    assert signals.shape == (3000, d) and atoms.shape == (40, d)
    assert signals.dtype == atoms.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=-1), 1, rtol=1e-5)
    assert len(np.unique(signals, axis=0)) > 500


def test_an_answer_worse_than_float64_stops_the_benchmark():
    signals, atoms = bench.photo_problem(16, 40, 300)
    supports, errors = bench.float64_omp(signals[:256], atoms, 4)
    code = omp(jnp.asarray(signals), jnp.asarray(atoms), sparsity=4)
    bench.check("omp", np.asarray(decode(code, atoms)), signals, errors)
    assert bench.same_supports(code, supports) > 0.99
    worse = code._replace(coefficients=1.2 * code.coefficients)
    with pytest.raises(SystemExit, match="worse leaves a squared error"):
        bench.check("worse", np.asarray(decode(worse, atoms)), signals, errors)


def test_every_row_is_timed_and_checked(monkeypatch, capsys):
    monkeypatch.setattr(bench, "CPU_SIZES", ((16, 40, 4, 1500),))
    rows = {name: bench.OMP_ROWS[name] for name in ("omp", "SPAMS", "scikit-learn")}
    monkeypatch.setattr(bench, "OMP_ROWS", rows)
    with flagsaver.flagsaver(rounds=2):
        bench.omp_table()
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("| 16, 40, 4, 1500")]
    assert [line.split(" | ")[1] for line in lines] == ["random", "photo"]
    assert "scikit-learn takes" in out and "SPAMS takes" in out
