"""The lasso against scikit-learn, SPAMS, its optimality conditions and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import lasso

N, D, M, PENALTY = 64, 12, 24, 0.3


def problem(rng, scale=1.0):
    dictionary = rng.normal(size=(M, D)) * rng.uniform(0.5, 2, (M, 1))
    return scale * rng.normal(size=(N, D)), dictionary


def objective(signals, dictionary, x, penalty=PENALTY, mask=1.0):
    rest = np.where(np.asarray(mask) > 0, signals, 0) - x @ dictionary
    return np.sum(mask * rest**2, -1) / 2 + np.sum(penalty * np.abs(x), -1)


def scikit_learn(signals, dictionary, penalty, positive=False):
    """Returns the codes of scikit-learn's coordinate descent, one signal at a time."""
    from sklearn.linear_model import Lasso

    m, d = dictionary.shape
    model = Lasso(
        alpha=1 / d, fit_intercept=False, positive=positive, tol=1e-12, max_iter=100000
    )  # its error is divided by d
    scaled = (dictionary / np.broadcast_to(penalty, m)[:, None]).T
    return np.stack([model.fit(scaled, y).coef_ for y in signals]) / penalty


def test_conditions_of_optimality_hold_to_rounding(rng, float64):
    signals, dictionary = problem(rng)
    x = np.asarray(lasso(signals, dictionary, penalty=PENALTY, tolerance=1e-13, iterations=5000))
    pull = (signals - x @ dictionary) @ dictionary.T
    np.testing.assert_allclose(pull[x != 0], PENALTY * np.sign(x[x != 0]), atol=1e-5)
    assert np.all(np.abs(pull) <= PENALTY + 1e-5)
    assert 0.1 < np.mean(x != 0) < 0.5


@pytest.mark.parametrize("nonnegative", [False, True])
def test_objective_equals_that_of_scikit_learn(nonnegative, rng, float64):
    signals, dictionary = problem(rng)
    penalty = rng.uniform(0.1, 1, M)
    x = np.asarray(lasso(signals, dictionary, penalty=penalty, nonnegative=nonnegative))
    theirs = scikit_learn(signals, dictionary, penalty, positive=nonnegative)
    assert not nonnegative or np.all(x >= 0)
    np.testing.assert_allclose(
        objective(signals, dictionary, x, penalty),
        objective(signals, dictionary, theirs, penalty), rtol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("atoms", ["coherent", "photo"])
def test_objective_with_similar_atoms_equals_that_of_scikit_learn(atoms, rng, float64, patches):
    """Patches of a photograph, as signals and as atoms, or atoms with a common part."""
    if atoms == "photo":
        busy = patches[np.linalg.norm(patches, axis=-1) > 0.2]
        signals, dictionary = busy[:32], busy[32:160]
    else:
        signals, dictionary = problem(rng)
        dictionary = dictionary + 3 * rng.normal(size=D)
    dictionary = dictionary / np.linalg.norm(dictionary, axis=-1, keepdims=True)
    assert np.max(np.abs(dictionary @ dictionary.T) - np.eye(len(dictionary))) > 0.9
    signals = signals / np.std(signals)
    x = np.asarray(lasso(signals, dictionary, penalty=PENALTY, iterations=3000))
    theirs = scikit_learn(signals, dictionary, PENALTY)
    np.testing.assert_allclose(
        objective(signals, dictionary, x), objective(signals, dictionary, theirs), rtol=1e-5
    )


def test_objective_equals_that_of_spams_in_float32(rng):
    spams = pytest.importorskip("spams")
    signals, dictionary = (np.float32(x) for x in problem(rng))
    x = np.asarray(lasso(signals, dictionary, penalty=PENALTY))
    columns = (np.asfortranarray(a.T, np.float64) for a in (signals, dictionary))
    theirs = np.asarray(spams.lasso(*columns, lambda1=PENALTY, mode=2).todense()).T
    np.testing.assert_allclose(
        objective(signals, dictionary, x), objective(signals, dictionary, theirs), rtol=1e-5
    )


def test_masked_lasso_equals_the_plain_one_of_visible_entries(rng, float64):
    signals, dictionary = problem(rng)
    weights = rng.choice([0, 0.5, 3], (N, D))
    hidden = np.where(weights > 0, signals, np.nan)
    x = np.asarray(lasso(hidden, dictionary, penalty=PENALTY, mask=weights, iterations=5000))
    for i in range(8):
        root = np.sqrt(weights[i])
        theirs = scikit_learn((root * signals[i])[None], root * dictionary, PENALTY)[0]
        ours, best = (objective(signals[i], dictionary, c, mask=weights[i]) for c in (x[i], theirs))
        np.testing.assert_allclose(ours, best, rtol=2e-6)


def test_hard_signals_and_atoms_affect_only_themselves(rng, float64):
    signals, dictionary = problem(rng)
    dictionary[0], dictionary[1], dictionary[2] = 0, np.nan, dictionary[3]
    expected = np.asarray(lasso(signals, dictionary, penalty=PENALTY))
    signals[0], signals[1, 0], signals[2], signals[3] = 0, np.nan, np.inf, 1e150
    found = np.asarray(lasso(signals, dictionary, penalty=PENALTY))
    assert not found[0].any() and np.isnan(found[1:3]).all() and np.isfinite(found[3]).all()
    np.testing.assert_allclose(found[4:], expected[4:], atol=1e-12)
    assert not found[4:, :2].any()
    alone = np.asarray(lasso(signals[5], dictionary, penalty=PENALTY))
    np.testing.assert_allclose(alone, expected[5], atol=1e-9)
    mapped = jax.vmap(lambda y: lasso(y, dictionary, penalty=PENALTY))(signals)
    np.testing.assert_allclose(mapped[4:], expected[4:], atol=1e-9)
    larger = np.asarray(lasso(1e100 * signals, dictionary, penalty=1e100 * PENALTY))
    np.testing.assert_allclose(larger[4:] / 1e100, expected[4:], atol=1e-9)


def test_warm_start_at_the_solution_needs_one_iteration(rng, float64):
    signals, dictionary = problem(rng)
    best = lasso(signals, dictionary, penalty=PENALTY, tolerance=1e-12, iterations=5000)
    again = lasso(signals, dictionary, penalty=PENALTY, iterations=1, initial=best)
    cold = lasso(signals, dictionary, penalty=PENALTY, iterations=1)
    np.testing.assert_allclose(again, best, atol=1e-5)
    assert np.max(np.abs(cold - best)) > 0.1


def test_a_path_of_penalties_by_warm_start_needs_fewer_iterations_for_the_same_solution(
    rng, float64
):
    signals, dictionary = problem(rng)

    def steps(penalty, best, initial):
        """The least number of steps tried at which all objectives are the best ones."""
        for count in range(1, 400, 3):
            x = lasso(signals, dictionary, penalty=penalty, iterations=count, initial=initial)
            found = objective(signals, dictionary, np.asarray(x), penalty)
            if np.all(found <= (1 + 1e-5) * objective(signals, dictionary, best, penalty)):
                return count

    x, options = np.zeros((N, M)), {"tolerance": 1e-12, "iterations": 5000}
    for penalty in (1.0, 0.8, 0.65, 0.5):
        before, zeros = x, np.zeros((N, M))
        cold = np.asarray(lasso(signals, dictionary, penalty=penalty, initial=zeros, **options))
        x = np.asarray(lasso(signals, dictionary, penalty=penalty, initial=before, **options))
        np.testing.assert_allclose(x, cold, atol=1e-5)
        if before.any():
            assert steps(penalty, cold, before) < steps(penalty, cold, zeros)


def test_first_and_second_derivatives_equal_finite_differences(rng, float64):
    signals, dictionary = problem(rng)
    signals = signals[:8]
    weights = rng.normal(size=(8, M))

    def value(signals, dictionary, penalty):
        x = lasso(signals, dictionary, penalty=penalty, tolerance=1e-14, iterations=3000)
        return jnp.sum(weights * jnp.sin(x))

    point = signals, dictionary, np.full(M, PENALTY)
    move = tuple(rng.normal(size=np.shape(x)) for x in point)

    def slope(*point):
        grads = jax.grad(value, (0, 1, 2))(*point)
        return sum(jnp.sum(g * v) for g, v in zip(grads, move, strict=True)), grads

    step = 1e-6
    there, back = (
        tuple(x + s * v for x, v in zip(point, move, strict=True)) for s in (step, -step)
    )
    slope = jax.jit(slope)
    found, grads = slope(*point)
    np.testing.assert_allclose((value(*there) - value(*back)) / (2 * step), found, rtol=1e-5)
    second = jax.jit(lambda *point: jax.jvp(lambda *p: slope(*p)[0], point, move)[1])(*point)
    change = (slope(*there)[0] - slope(*back)[0]) / (2 * step)
    np.testing.assert_allclose(change, second, rtol=1e-4)
    assert grads[1].shape == dictionary.shape


@pytest.mark.parametrize("options, match", [
    ({"penalty": np.ones(3)}, "penalty"), ({"penalty": 1j}, "real"),
    ({"penalty": np.nan}, "penalty must be a number"),
    ({"penalty": np.where(np.arange(M) == 3, np.nan, 1)}, "penalty must be a number"),
    ({"penalty": 1, "iterations": 0}, "iterations"), ({"penalty": 1, "tolerance": -1}, "least 0"),
    ({"penalty": 1, "initial": np.ones(3)}, "initial"),
])  # fmt: skip
def test_wrong_arguments_raise(options, match):
    with pytest.raises(ValueError, match=match):
        lasso(np.ones((N, D), np.float32), np.ones((M, D), np.float32), **options)
