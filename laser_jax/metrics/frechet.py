"""The Fréchet distance of two sets of features under a Gaussian model. NumPy, float64.

Only with the features of FID's own Inception network is it called FID.
"""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Float64


class GaussianStatistics:
    """Accumulates the mean and the covariance of feature vectors over batches.

    Attributes:
      count: number of vectors so far.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self._origin = np.zeros(width)
        self._sum = np.zeros(width)
        self._products = np.zeros((width, width))

    def add(self, features: Float[ArrayLike, "n width"]) -> None:
        """Adds features `(n, width)`."""
        features = np.asarray(features, np.float64)
        if not len(features):
            return
        if not self.count:
            self._origin = features.mean(axis=0)  # near the mean, so that few digits cancel
        centred = features - self._origin
        self.count += len(features)
        self._sum += centred.sum(axis=0)
        self._products += centred.T @ centred

    def moments(self) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "d d"]]:
        """Returns the mean `(width,)` and the unbiased covariance `(width, width)`.

        Raises:
          ValueError: if there are fewer than two vectors.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two vectors, got {self.count}.")
        outer = np.outer(self._sum, self._sum) / self.count
        covariance = (self._products - outer) / (self.count - 1)
        return self._origin + self._sum / self.count, covariance


def frechet_distance(
    mean_a: Float[ArrayLike, " d"],
    covariance_a: Float[ArrayLike, "d d"],
    mean_b: Float[ArrayLike, " d"],
    covariance_b: Float[ArrayLike, "d d"],
) -> float:
    """Returns the squared Fréchet distance of two Gaussians.

    |mu_a - mu_b|^2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2)). The product is symmetric, so its
    eigenvalues are real even if a covariance is singular, as with fewer vectors than features.

    Args:
      mean_a, mean_b: `(d,)`.
      covariance_a, covariance_b: `(d, d)`, symmetric, positive semidefinite.

    Raises:
      ValueError: if the shapes are inconsistent.

    References:
      Dowson and Landau, The Fréchet distance between multivariate normal distributions,
      1982. Heusel et al., GANs trained by a two time-scale update rule, 2017 (FID).
    """
    moments = [np.asarray(x) for x in (mean_a, covariance_a, mean_b, covariance_b)]
    if any(np.iscomplexobj(x) for x in moments):
        raise ValueError(f"moments must be real, got {', '.join(str(x.dtype) for x in moments)}.")
    mean_a, covariance_a, mean_b, covariance_b = (x.astype(np.float64) for x in moments)
    square = (mean_a.size, mean_a.size)
    if (
        mean_a.ndim != 1
        or mean_a.shape != mean_b.shape
        or {covariance_a.shape, covariance_b.shape} != {square}
    ):
        raise ValueError(
            f"means {mean_a.shape} and {mean_b.shape} do not fit covariances "
            f"{covariance_a.shape} and {covariance_b.shape}; they must be (d,) and (d, d)."
        )
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = root @ covariance_b @ root
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2)
    overlap = np.sum(np.sqrt(np.maximum(eigenvalues, 0)))
    distance = np.sum((mean_a - mean_b) ** 2)
    distance += np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap
    return float(max(distance, 0))
