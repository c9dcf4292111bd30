"""`laser_jax.sparse` as scikit-learn estimators, for pipelines and grid searches.

    from laser_jax.sklearn import DictionaryLearning

    model = DictionaryLearning(64, transform_n_nonzero_coefs=4, random_state=0).fit(X)
    codes = model.transform(X)                 # (n, 64), at most 4 of a row are not 0
    approximation = model.inverse_transform(codes)

They compute in the floating type of `X`, as scikit-learn does: pass float32 for speed, especially
on a GPU. Needs `pip install laser-jax[sklearn]`.
"""

import numbers
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import Float, Real
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from laser_jax.checks import check_at_least, check_choice
from laser_jax.sparse import (
    DictionaryLearner,
    LearnerState,
    fit_dictionary,
    lasso,
    nonnegative_omp,
    omp,
    to_dense,
)
from laser_jax.sparse.fit import count_iterations
from laser_jax.sparse.ksvd import nonnegative_name

_FLOATS = (np.float64, np.float32)
_BLOCK = 4096  # signals that are coded at a time
_ITERATIONS = 3000  # most steps of the lasso; very similar atoms need this many
ALGORITHMS = ("omp", "lasso")


class _Coding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What both estimators share: codes in `_atoms`."""

    def transform(self, X: Real[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        """Returns the codes of signals.

        Args:
          X: `(n, d)` array, one signal a row.

        Returns:
          `(n, m)` array; by "omp" at most `transform_n_nonzero_coefs` of a row are not 0.

        Raises:
          ValueError: if a parameter is out of range, or X has another width than the atoms.
        """
        check_is_fitted(self)
        self._check_coding()
        X = validate_data(self, X, dtype=_FLOATS, reset=False)
        atoms, found = self._atoms.astype(X.dtype), np.empty((len(X), len(self._atoms)), X.dtype)
        with jax.enable_x64(X.dtype == np.float64):
            for start in range(0, len(X), _BLOCK):
                rows = X[start : start + _BLOCK]
                dense = self._codes(_filled_up(rows), atoms)
                found[start : start + _BLOCK] = np.asarray(dense)[: len(rows)]
        return found

    def _check_coding(self):
        check_choice("transform_algorithm", self.transform_algorithm, ALGORITHMS)
        for name in ("transform_tol", "transform_alpha"):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name))

    def _codes(self, rows, atoms):
        """Returns the dense codes of some signals."""
        if self.transform_algorithm == "lasso":
            penalty = 1.0 if self.transform_alpha is None else self.transform_alpha
            options = {"iterations": _ITERATIONS, "nonnegative": self.positive_code}
            return lasso(rows, atoms, penalty=penalty, **options)
        code = _pursuit(self.positive_code)(
            rows, atoms, sparsity=self._sparsity, tolerance=self.transform_tol
        )
        return to_dense(code, len(atoms))

    def inverse_transform(self, X: Real[np.ndarray, "n m"]) -> Float[np.ndarray, "n d"]:
        """Returns the signals `(n, d)` that codes `(n, m)` stand for."""
        check_is_fitted(self)
        X = check_array(X, dtype=_FLOATS)
        if X.shape[1] != len(self._atoms):
            raise ValueError(f"X has {X.shape[1]} columns, but there are {len(self._atoms)} atoms.")
        return X @ self._atoms.astype(X.dtype)

    @property
    def _sparsity(self):
        """Atoms a signal; by default a tenth of the signal's width, as in scikit-learn."""
        m, d = self._atoms.shape
        return _sparsity(self.transform_n_nonzero_coefs, m, d)

    @property
    def _n_features_out(self):
        return len(self._atoms)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class DictionaryLearning(_Coding):
    """Learns a dictionary in which signals are sparse; codes are those of `laser_jax.sparse`.

    `fit` learns from all signals at once (`fit_dictionary`), `partial_fit` from a stream
    (`DictionaryLearner`), after a `fit` too.

    Args:
      n_components: atoms, m; None for as many as a signal is wide.
      transform_n_nonzero_coefs: atoms a signal, k, in `fit` too; None for a tenth of the width.
      transform_tol: squared error at which a signal is done; None to use all k atoms.
      transform_algorithm: "omp" or "lasso", how `transform` codes; atoms learn by pursuit.
      transform_alpha: penalty of the lasso, as in scikit-learn; None for 1.
      positive_code: whether coefficients are >= 0, in learning too; needs the method "approximate"
        or "online" there.
      positive_dict: whether atoms are >= 0; needs these methods too.
      method: how atoms learn, as in `fit_dictionary`.
      max_iter: iterations of `fit`, at least 1.
      tol: `fit` stops where an iteration lowers the error by no more than this share; 0 never
        stops.
      batch_size: signals a step of `partial_fit`.
      dict_init: `(m, d)` array to start from; None for signals.
      random_state: seed, `numpy.random.RandomState` or None.

    Attributes:
      components_: `(m, d)` array, unit-norm atoms.
      error_: mean squared error ||y - x D||^2 of the signals at the end of `fit`.
      n_iter_: iterations of the last `fit`, or steps of `partial_fit`.
      n_features_in_: d. `feature_names_in_` where `X` has names of columns.
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        transform_n_nonzero_coefs: int | None = None,
        transform_tol: float | None = None,
        transform_algorithm: str = "omp",
        transform_alpha: float | None = None,
        positive_code: bool = False,
        positive_dict: bool = False,
        method: str = "approximate",
        max_iter: int = 50,
        tol: float = 1e-4,
        batch_size: int = 1024,
        dict_init: Real[np.ndarray, "m d"] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.n_components = n_components
        self.transform_n_nonzero_coefs = transform_n_nonzero_coefs
        self.transform_tol = transform_tol
        self.transform_algorithm = transform_algorithm
        self.transform_alpha = transform_alpha
        self.positive_code = positive_code
        self.positive_dict = positive_dict
        self.method = method
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.dict_init = dict_init
        self.random_state = random_state

    def fit(self, X: Real[np.ndarray, "n d"], y: Any = None) -> Self:
        """Learns from `(n, d)` signals; `y` is not used. Returns the estimator.

        Raises:
          ValueError: if a parameter is out of range or `dict_init` does not fit.
        """
        X = validate_data(self, X, dtype=_FLOATS)
        self._check_coding()
        check_at_least("max_iter", self.max_iter, 1)
        _check_number("tol", self.tol)
        m = self._num_atoms
        with jax.enable_x64(X.dtype == np.float64):
            result = fit_dictionary(
                _filled_up(X),
                num_atoms=m,
                sparsity=_sparsity(self.transform_n_nonzero_coefs, m, X.shape[1]),
                method=self.method,
                iterations=self.max_iter,
                dictionary=self.dict_init,
                tolerance=self.tol,
                nonnegative=self._nonnegative,
                key=self._key(),
            )
        self.components_: np.ndarray = np.array(result.dictionary, X.dtype)
        self.error_ = float(result.errors[-1])
        self.n_iter_ = count_iterations(result, self.tol)
        self._state: LearnerState | None = None
        return self

    def partial_fit(self, X: Real[np.ndarray, "n d"], y: Any = None) -> Self:
        """Learns from some signals `(n, d)` of a stream; `y` is not used. Returns the estimator.

        Raises:
          ValueError: as `fit`.
        """
        self._check_coding()
        first = not hasattr(self, "components_")
        X = validate_data(self, X, dtype=_FLOATS, reset=first)
        state = None if first else self._state
        dtype = X.dtype if first else self.components_.dtype
        m = self._num_atoms if first else len(self.components_)
        learner = DictionaryLearner(
            m,
            _sparsity(self.transform_n_nonzero_coefs, m, X.shape[1]),
            method=self.method,
            batch_size=self.batch_size,
            nonnegative=self._nonnegative,
        )
        with jax.enable_x64(dtype == np.float64):
            for start in range(0, len(X), learner.batch_size):
                rows = _filled_up(X[start : start + learner.batch_size].astype(dtype))
                if state is None:
                    atoms = self.dict_init if first else self.components_
                    state = learner.init(self._key(), rows, dictionary=atoms)
                state = learner.update(state, rows)
            state = self._state = jax.tree.map(np.array, state)
        self.components_ = state.dictionary
        self.n_iter_ = int(state.step)
        return self

    @property
    def _atoms(self):
        return self.components_

    @property
    def _num_atoms(self):
        return self.n_features_in_ if self.n_components is None else self.n_components

    @property
    def _nonnegative(self):
        return nonnegative_name(bool(self.positive_dict), bool(self.positive_code))

    def _key(self):
        return jax.random.key(check_random_state(self.random_state).randint(2**31 - 1))


class SparseCoder(_Coding):
    """Codes signals in a given dictionary.

    Args:
      dictionary: `(m, d)` array, atoms of any norm.
      transform_n_nonzero_coefs, transform_tol, transform_algorithm, transform_alpha, positive_code:
        as of `DictionaryLearning`.

    Attributes:
      n_features_in_: d.
    """

    def __init__(
        self,
        dictionary: Real[np.ndarray, "m d"],
        *,
        transform_n_nonzero_coefs: int | None = None,
        transform_tol: float | None = None,
        transform_algorithm: str = "omp",
        transform_alpha: float | None = None,
        positive_code: bool = False,
    ):
        self.dictionary = dictionary
        self.transform_n_nonzero_coefs = transform_n_nonzero_coefs
        self.transform_tol = transform_tol
        self.transform_algorithm = transform_algorithm
        self.transform_alpha = transform_alpha
        self.positive_code = positive_code

    def fit(self, X: Real[np.ndarray, "n d"], y: Any = None) -> Self:
        """Checks that signals are as wide as atoms; learns nothing. Returns the estimator."""
        validate_data(self, X, dtype=_FLOATS, reset=False)
        return self

    @property
    def n_features_in_(self):
        """Width of the atoms."""
        return self._atoms.shape[1]

    @property
    def _atoms(self):
        return check_array(self.dictionary, dtype=_FLOATS)

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


def _check_number(name, value):
    """Raises ValueError unless a parameter is a number >= 0."""
    if not isinstance(value, numbers.Real) or not value >= 0:
        raise ValueError(f"{name} must be a number >= 0, got {value!r}.")


def _pursuit(positive_code):
    return nonnegative_omp if positive_code else omp


def _sparsity(n_nonzero_coefs, num_atoms, width):
    if n_nonzero_coefs is None:
        return min(max(width // 10, 1), num_atoms)
    return n_nonzero_coefs


def _filled_up(rows):
    """Returns rows, padded with ignored NaN rows if they are few, so that sizes share programs."""
    n = len(rows)
    missing = max(128, 1 << (n - 1).bit_length()) - n if n < 1024 else 0
    return np.pad(rows, ((0, missing), (0, 0)), constant_values=np.nan)
