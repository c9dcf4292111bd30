"""The scikit-learn estimators."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import SparseCoder as ReferenceCoder
from sklearn.linear_model import orthogonal_mp
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from laser_jax.sklearn import DictionaryLearning, SparseCoder

RNG = np.random.default_rng(0)
M, D, K = 12, 8, 2
TRUTH = RNG.normal(size=(M, D))
TRUTH /= np.linalg.norm(TRUTH, axis=-1, keepdims=True)
CODES = RNG.normal(size=(120, M)) * (np.argsort(RNG.random((120, M)), -1) < K)
X = CODES @ TRUTH
MODEL = DictionaryLearning(M, transform_n_nonzero_coefs=K, max_iter=20, random_state=0)


def model_with(**changes):
    return clone(MODEL).set_params(**changes)


@pytest.mark.slow
def test_dictionary_learning_passes_the_checks_of_scikit_learn():
    check_estimator(DictionaryLearning(max_iter=2))


@pytest.mark.slow
def test_a_sparse_coder_passes_the_checks_whose_signals_are_as_wide_as_its_atoms():
    """Checks have signals of many widths, so scikit-learn leaves out its own `SparseCoder`."""
    outcomes = {}
    for width in (1, 2, 3, 4, 5, 10):
        coder = SparseCoder(RNG.normal(size=(M, width)))
        for found in check_estimator(coder, on_fail=None, on_skip=None):
            outcomes.setdefault(found["check_name"], set()).add(found["status"])
    failed = {name for name, seen in outcomes.items() if seen == {"failed"}}
    assert failed == {"check_n_features_in"}  # a coder knows its width before `fit`
    assert sum("passed" in seen for seen in outcomes.values()) > 30


def test_codes_are_those_of_scikit_learn():
    coder = SparseCoder(TRUTH, transform_n_nonzero_coefs=K)
    expected = orthogonal_mp(TRUTH.T, X.T, n_nonzero_coefs=K).T
    found = coder.transform(X)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(coder.inverse_transform(found), expected @ TRUTH, atol=1e-9)
    assert coder.fit(X) is coder and coder.n_features_in_ == D
    assert list(coder.get_feature_names_out()[:2]) == ["sparsecoder0", "sparsecoder1"]
    with pytest.raises(ValueError, match="8 features"):
        coder.transform(X[:, 1:])
    with pytest.raises(ValueError, match="11 columns, but there are 12 atoms"):
        coder.inverse_transform(found[:, 1:])


def test_a_fit_leaves_little_error():
    model = clone(MODEL).fit(X)
    assert model.components_.shape == (M, D) and 1 < model.n_iter_ <= 20
    error = np.mean(np.sum((X - model.inverse_transform(model.transform(X))) ** 2, -1))
    assert error < 0.1 * np.mean(np.sum(X**2, -1))
    np.testing.assert_allclose(model.error_, error, rtol=0.5)


def test_partial_fit_learns_from_a_stream_and_goes_on_after_a_pickle():
    model = model_with(batch_size=32)
    for _ in range(15):
        model.partial_fit(X[:60])
        model = pickle.loads(pickle.dumps(model)).partial_fit(X[60:])
    assert model.n_iter_ == 60
    whole = model_with(batch_size=32)
    for _ in range(15):
        whole.partial_fit(X[:60]).partial_fit(X[60:])
    np.testing.assert_array_equal(model.components_, whole.components_)
    error = np.mean(np.sum((X - model.inverse_transform(model.transform(X))) ** 2, -1))
    assert error < 0.1 * np.mean(np.sum(X**2, -1))
    warm = model_with(dict_init=TRUTH, batch_size=32).partial_fit(X)
    assert np.min(np.sum(warm.components_ * TRUTH, -1)) > 0.9


@pytest.mark.parametrize("change", [
    {"transform_tol": -1}, {"transform_tol": np.nan}, {"transform_tol": "small"},
    {"transform_alpha": -0.1}, {"tol": None}, {"tol": -1e-4}, {"tol": np.nan},
])  # fmt: skip
def test_parameters_out_of_range_raise_by_their_names(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be a number >= 0, got"):
        model_with(**change).fit(X)
    if "tol" not in change:
        with pytest.raises(ValueError, match=f"{next(iter(change))} must be a number >= 0, got"):
            SparseCoder(TRUTH, **change).transform(X)


def test_iterations_are_counted_where_errors_repeat():
    model = clone(MODEL).fit(np.zeros_like(X))
    assert model.n_iter_ == 2 and model.error_ == 0
    assert model.set_params(tol=0).fit(np.zeros_like(X)).n_iter_ == 20


def test_it_works_in_a_pipeline_and_a_grid_search_and_pickles():
    def score(pipeline, X, y=None):
        return -np.mean((X - pipeline.inverse_transform(pipeline.transform(X))) ** 2)

    pipeline = make_pipeline(StandardScaler(), clone(MODEL))
    grid = {"dictionarylearning__transform_tol": [1e-9, 100.0]}
    search = GridSearchCV(pipeline, grid, scoring=score, cv=2, error_score="raise").fit(X)
    assert search.best_params_ == {"dictionarylearning__transform_tol": 1e-9}
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.transform(X), search.transform(X))
    names = search.best_estimator_.get_feature_names_out()
    assert len(names) == M and names[0] == "dictionarylearning0"


@pytest.mark.parametrize("positive", [False, True])
def test_lasso_codes_are_those_of_scikit_learn(positive):
    options = {"transform_alpha": 0.1, "positive_code": positive}
    coder = SparseCoder(TRUTH, transform_algorithm="lasso", **options)
    expected = ReferenceCoder(TRUTH, transform_algorithm="lasso_cd", **options).transform(X)
    found = coder.transform(X)

    def objective(codes):
        return 0.5 * np.sum((X - codes @ TRUTH) ** 2, -1) + 0.1 * np.sum(np.abs(codes), -1)

    assert np.all(objective(found) <= (1 + 1e-5) * objective(expected))
    assert np.all(found >= 0) == positive


def test_positive_codes_and_atoms_are_positive():
    options = {"positive_code": True, "transform_n_nonzero_coefs": K}
    signals = np.abs(CODES) @ TRUTH
    found = SparseCoder(TRUTH, **options).transform(signals)
    assert np.all(found >= 0) and np.count_nonzero(found) > 1.5 * len(X)
    model = model_with(positive_code=True).fit(signals)
    assert np.all(model.transform(signals) >= 0)
    assert model.error_ < 0.2 * np.mean(np.sum(signals**2, -1))
    signals = np.abs(CODES) @ np.abs(TRUTH)
    model = model_with(positive_code=True, positive_dict=True).fit(signals)
    for _ in range(3):
        assert np.all(model.components_ >= 0) and np.all(model.transform(signals) >= 0)
        model.partial_fit(signals)
    assert model.error_ < 0.05 * np.mean(np.sum(signals**2, -1))
    with pytest.raises(ValueError, match="'lars'; choose from lasso, omp"):
        model_with(transform_algorithm="lars").partial_fit(signals)
    with pytest.raises(ValueError, match="'lars'; choose from lasso, omp"):
        SparseCoder(TRUTH, transform_algorithm="lars").transform(X)
