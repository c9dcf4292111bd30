"""The nearest atom of each signal, correct also where products round away the distances.

argmin_j ||y - d_j||^2 = argmax_j <y, d_j> - ||d_j||^2 / 2 takes one product, rounded to about
eps sqrt(d) ||d_j||^2. Where atoms lie together much closer than to the origin, as in groups far
from each other, the rounding decides between them. For how many signals it would is estimated
from the distances among the atoms; then true differences y - d_j decide, of the two best atoms
or of all. The estimate depends on the dictionary alone, so signals on several devices are coded
without communication.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.atoms import Atoms
from laser_jax.sparse.code import is_finite
from laser_jax.sparse.linalg import matmul, power_scales, rescaled, row_argmax
from laser_jax.sparse.loops import fori_loop

# Shares of signals that rounding decides: from the first on the two best atoms are compared by
# true differences, from the second on all atoms, which takes some 20 times as long.
_SOME, _MANY = 1e-5, 1e-2


def nearest_atoms(dictionary, form, num_signals, prices=None):
    """Returns a function from signals `(b, d)` to the indices `(b,)` of their nearest atoms.

    The first one in a tie. An atom that is not finite, or has an infinite price, is nearest to
    none.

    Args:
      dictionary: `(m, d)`.
      form: "rows" or "columns"; see `choose_form`.
      num_signals: how many signals there are; may be symbolic.
      prices: `(m,)`, added to the squared distance from each atom; None for 0.
    """
    m = dictionary.shape[0]
    prices = jnp.zeros(m, dictionary.dtype) if prices is None else prices
    finite = is_finite(dictionary) & jnp.isfinite(prices)[:, None]
    atoms = jnp.where(finite, dictionary, 0)
    # Scales are powers of two: squares stay in range, and no difference is rounded.
    scale = power_scales(atoms.ravel())[0]
    atoms, prices = atoms / scale, rescaled(prices, scale)
    vectors, center = _centered(atoms, finite)
    # So many that the estimate is a small share of the work.
    known = isinstance(num_signals, int)
    doubt = _doubt(vectors, finite, min(m, max(16, num_signals // 16)) if known else m)
    given = Atoms.in_form(jnp.where(finite, atoms, jnp.inf), form)  # not finite: far from all
    half_costs = (jnp.sum(vectors**2, axis=-1) + prices) / 2
    return _Search(
        given,
        Atoms.in_form(vectors, form),
        given.block(center),
        scale,
        prices,
        jnp.expand_dims(jnp.where(finite[:, 0], half_costs, jnp.inf), 1 - given.axis),
        runners_up=jnp.where(doubt > _SOME, 1, 0),
        all_atoms=jnp.where(doubt > _MANY, m, 0),
    )


class _Search(NamedTuple):
    """The search for the nearest atom; signals and atoms are divided by powers of two."""

    given: Atoms
    about_center: Atoms
    center: jax.Array  # block of one vector
    scale: jax.Array
    prices: jax.Array  # (m,)
    half_costs: jax.Array  # of each atom about the centre, in the form of a block
    runners_up: jax.Array  # 1 if true differences decide between the two best atoms, else 0
    all_atoms: jax.Array  # m if they decide between all atoms, else 0

    def __call__(self, signals):
        given = self.given
        block = given.block(signals)
        own = jnp.maximum(power_scales(block, given.axis), self.scale)
        share = jnp.maximum(self.scale / own, jnp.finfo(own.dtype).tiny)
        block /= own
        products = self.about_center.correlations(block - share * self.center)

        def score():  # computed again where it is used: writing it takes longer
            return products - share * self.half_costs

        def compare_runner_up(_, index):
            best = lax.broadcasted_iota(jnp.int32, products.shape, given.axis) == given.each(index)
            other, _ = given.argmax(jnp.where(best, -jnp.inf, score()))
            first, second = (self._costs(block, share, x) for x in (index, other))
            closer = (second < first) | ((second == first) & (other < index))
            return jnp.where(closer, other, index)

        def compare_all(j, best):
            least, index = best
            cost = self._costs(block, share, j[None])
            closer = cost < least
            return jnp.where(closer, cost, least), jnp.where(closer, j.astype(jnp.int32), index)

        index = fori_loop(0, self.runners_up, compare_runner_up, given.argmax(score())[0])
        infinite = jnp.full(index.shape, jnp.inf, block.dtype)
        return fori_loop(0, self.all_atoms, compare_all, (infinite, index))[1]

    def _costs(self, block, share, index):
        """Returns squared distance plus price `(b,)` from the atoms `index`, `(b,)` or `(1,)`."""
        squares = jnp.sum((block - share * self.given.take(index)) ** 2, axis=self.given.axis)
        return squares + share.ravel() ** 2 * self.prices[index]


def _centered(atoms, finite):
    """Returns the atoms about their mean, and the mean `(1, d)`; 0 where it is not far."""
    count = jnp.maximum(jnp.sum(finite), 1)
    mean = jnp.sum(atoms, axis=0, keepdims=True) / count
    spread = jnp.sum(jnp.where(finite, (atoms - mean) ** 2, 0)) / count
    mean = jnp.where(jnp.sum(mean**2) > spread, mean, 0)
    return jnp.where(finite, atoms - mean, 0), mean


def _doubt(vectors, finite, samples):
    """Estimates the share of signals near these atoms whose nearest atom rounding decides.

    Of signals near an atom it is about the rounding over the squared distance to the next one.
    """
    m, d = vectors.shape
    picks = jnp.arange(samples) * m // samples
    some, squares = vectors[picks], jnp.sum(vectors**2, axis=-1)
    between = squares[picks, None] + squares[None, :] - 2 * matmul(some, vectors.T)
    left_out = (jnp.arange(m)[None, :] == picks[:, None]) | ~finite.T
    next_atom, negative = row_argmax(jnp.where(left_out, -jnp.inf, -between))
    rounding = jnp.finfo(vectors.dtype).eps * d**0.5 * squares[picks] / 2
    share = jnp.clip(rounding / jnp.maximum(-negative, rounding), 0, 1)
    # Equal atoms are a tie that rounding leaves one; atoms at 0 have no rounding.
    equal = jnp.all(vectors[next_atom] == some, axis=-1) | (rounding == 0)
    return jnp.mean(jnp.where(equal, 0, share))
