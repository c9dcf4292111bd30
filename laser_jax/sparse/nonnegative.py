"""Orthogonal matching pursuit with coefficients >= 0.

Each iteration takes the atom of largest positive correlation with the residual; then an active-set
method (Lawson and Hanson) solves nonnegative least squares over the support. An atom whose
coefficient would fall below 0 leaves the support, so every atom of a code has a coefficient > 0
and these are the least-squares ones.

Instead of factorising the support again we keep its dual vectors p_i, those in its span with
<p_i, a_j> = 1 if i = j else 0. The least-squares coefficients of y are <p_i, y>. A new atom, and
one that leaves, change the duals by one rank-one update each; no LAPACK is called.

Cost: one product of the residuals with the dictionary an iteration, and O(n k d) an update.
Memory: O(block_size (m + k d)) in addition to the result.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from laser_jax.checks import check_signals
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.coder import run_coder
from laser_jax.sparse.entry import entry
from laser_jax.sparse.loops import while_loop
from laser_jax.sparse.support import refitted

# An atom that leaves frees its place, so a code of k atoms may take more than k iterations. Almost
# no signal needs half as many more.
_ITERATIONS_AN_ATOM = 3


@entry(static=("sparsity", "block_size"), compiled=False, like="signals")
def nonnegative_omp(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    *,
    sparsity: int,
    tolerance: Real[ArrayLike, "*#batch"] | None = None,
    block_size: int | None = None,
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
) -> SparseCode:
    """Codes each signal with at most `sparsity` atoms and coefficients >= 0, chosen greedily.

    Approximates argmin_x ||y - x D||^2 subject to ||x||_0 <= k and x >= 0. Over the support the
    coefficients are those of nonnegative least squares. A signal is done where no atom correlates
    positively with the residual. Differentiable twice, the support held. On several devices, a
    batch sharded by jit exchanges one flag an iteration; `shard_map` exchanges nothing.

    Args, Returns and Raises as for `omp`.

    References:
      Bruckstein, Elad and Zibulevsky, On the uniqueness of nonnegative sparse solutions to
      underdetermined systems of equations, 2008.
      Nguyen, Idier, Soussen and Djermoune, Non-negative orthogonal greedy algorithms, 2019.
    """
    signals, dictionary = check_signals(signals, dictionary)
    code = run_coder(
        _code_block,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=jnp.inf,
        tolerance=tolerance,
        block_size=block_size,
        mask=mask,
        rows_only=True,
    )
    code = refitted(signals, dictionary, code, mask=mask)
    # Rounding alone can make one negative.
    return code._replace(coefficients=jnp.where(code.coefficients < 0, 0, code.coefficients))


class _Support(NamedTuple):
    """Each signal's support in k places; a free place holds index m and zeros."""

    code: SparseCode  # (k, b)
    atoms: jax.Array  # (k, b, d)
    duals: jax.Array  # (k, b, d)

    @property
    def used(self):
        """Whether each place is taken, `(k, b)`."""
        return jnp.any(self.duals != 0, axis=-1)

    def residual(self, signals):
        return signals - jnp.sum(self.code.coefficients[..., None] * self.atoms, axis=0)

    def wanted(self, signals):
        """Returns the least-squares coefficients `(k, b)`, as a correction of those held."""
        residual = self.residual(signals)
        return self.code.coefficients + jnp.sum(self.duals * residual[None], axis=-1)

    def with_coefficients(self, coefficients):
        return self._replace(code=self.code._replace(coefficients=coefficients))

    def orthogonal(self, atom):
        """Returns what of `(b, d)` atoms is orthogonal to the support, and their parts in it."""
        rest, parts = atom, jnp.zeros_like(self.code.coefficients)
        for _ in range(2):  # once would leave more than rounding of the span
            part = jnp.sum(self.duals * rest[None], axis=-1)
            rest = rest - jnp.sum(part[..., None] * self.atoms, axis=0)
            parts = parts + part
        return rest, parts

    def add(self, place, index, atom, rest, parts):
        """Returns the support with an atom in the `(k, b)` place, with coefficient 0."""
        square = jnp.sum(rest**2, axis=-1, keepdims=True)
        dual = (rest / jnp.where(square > 0, square, 1))[None]
        change = jnp.any(place, axis=0)[None, :, None] & ~place[..., None]
        duals = jnp.where(change, self.duals - parts[..., None] * dual, self.duals)
        return _Support(
            self.code._replace(indices=jnp.where(place, index[None], self.code.indices)),
            jnp.where(place[..., None], atom[None], self.atoms),
            jnp.where(place[..., None], dual, duals),
        )

    def remove(self, place, num_atoms):
        """Returns the support without the atom in the `(k, b)` place, at most one a signal."""
        dual = jnp.sum(jnp.where(place[..., None], self.duals, 0), axis=0)
        square = jnp.sum(dual**2, axis=-1)
        shares = jnp.sum(self.duals * dual[None], axis=-1) / jnp.where(square > 0, square, 1)[None]
        duals = self.duals - shares[..., None] * dual[None]
        indices, coefficients = self.code
        return _Support(
            SparseCode(jnp.where(place, num_atoms, indices), jnp.where(place, 0, coefficients)),
            jnp.where(place[..., None], 0, self.atoms),
            jnp.where(place[..., None], 0, duals),
        )


def _code_block(signals, atoms, sparsity, tolerance):
    (m, d), b = atoms.vectors.shape, signals.shape[0]
    eps = jnp.finfo(signals.dtype).eps
    squared = atoms.dot(signals, signals)
    # A residual this small is rounding: its correlations no longer mean anything.
    floor = jnp.maximum(tolerance, squared * (4 * eps) ** 2 * d)
    least = 4 * eps * jnp.sqrt(squared)

    def add_atom(state):
        i, support, active = state
        residual = support.residual(signals)
        index, correlation = atoms.argmax(atoms.correlations(residual))
        atom = atoms.take(index)
        rest, parts = support.orthogonal(atom)
        # An atom inside the span of the support is the best only if none can lower the error.
        independent = atoms.dot(rest, rest) > (32 * eps) ** 2
        active &= independent & (correlation > least) & (atoms.dot(residual, residual) > floor)
        place = _first(~support.used) & active[None]
        active = jnp.any(place, axis=0)
        support = _solve(support.add(place, index, atom, rest, parts), signals, m)
        # An atom that leaves at once was chosen by rounding and would be chosen again.
        return i + 1, support, active & jnp.any(place & support.used, axis=0)

    def unfinished(state):
        i, _, active = state
        return (i < _ITERATIONS_AN_ATOM * sparsity) & jnp.any(active)

    zeros = jnp.zeros((sparsity, b), signals.dtype)
    vectors = jnp.zeros((sparsity, b, d), signals.dtype)
    empty = _Support(SparseCode(jnp.full((sparsity, b), m, jnp.int32), zeros), vectors, vectors)
    return while_loop(unfinished, add_atom, (jnp.int32(0), empty, squared > floor))[1].code


def _solve(support, signals, num_atoms):
    """Returns the support that nonnegative least squares keeps, with its coefficients."""

    def below(state):
        support, wanted = state
        return support.used & (wanted <= 0)

    def drop(state):
        support, wanted = state
        held, bad = support.code.coefficients, below(state)
        # As far towards the wanted coefficients as all stay >= 0: the first that reaches 0 leaves.
        length = jnp.where(bad, held / jnp.where(bad, held - wanted, 1), jnp.inf)
        length = jnp.where(jnp.isnan(length), 0, length)
        shortest = jnp.min(length, axis=0)
        place = _first(bad & (length == shortest[None]))
        moves = jnp.any(bad, axis=0)
        step = jnp.where(moves, jnp.minimum(shortest, 1), 0)
        moved = support.with_coefficients(jnp.maximum(held + step[None] * (wanted - held), 0))
        support = jax.tree.map(
            lambda new, old: jnp.where(jnp.expand_dims(moves, (0, *range(2, new.ndim))), new, old),
            moved.remove(place, num_atoms),
            support,
        )
        new = support.wanted(signals)
        return support, jnp.where(moves[None], new, wanted)

    start = support, support.wanted(signals)
    support, wanted = while_loop(lambda state: jnp.any(below(state)), drop, start)
    return support.with_coefficients(jnp.where(support.used, wanted, 0))


def _first(mask):
    """Returns `(k, b)` of which only the first place in each column that holds True does."""
    place = lax.broadcasted_iota(jnp.int32, mask.shape, 0)
    return place == jnp.min(jnp.where(mask, place, len(mask)), axis=0)[None]
