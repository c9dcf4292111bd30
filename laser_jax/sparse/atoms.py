"""Unit atoms and the operations that coders need, in a form chosen by their shape.

A block of signals is `(b, d)`, one signal a row, or `(d, b)`, one a column: `axis` is the
one along which a vector runs, so sums over it mean the same in both. One number per signal is
`(b,)`, k numbers per signal are `(k, b)`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.linalg import matmul, row_argmax
from laser_jax.sparse.loops import fori_loop, row

# Rows of a matrix added up in one pass over the sum: reading and writing the sum for each row
# takes half as long again.
_ROWS_A_PASS = 4
ON_ACCELERATORS = "rows at once"


def choose_form(num_signals, num_atoms, width, sparsity, rows_a_step):
    """Returns in which form a CPU codes a block: "columns", "gram" or "rows".

    columns: signals are columns. A vector instruction then works on one number each of many
      signals, so vectors of 3 numbers waste nothing. Gathering columns is slow, so the
      dictionary must be tiny.
    gram: correlations are corrected by `rows_a_step` rows of the Gram matrix a step, instead of
      recomputed by a product of the residual with the dictionary, which takes `width`
      multiplications an atom. The multiplications of a product run several times as fast, because
      its data is in cache, and the Gram matrix takes one product for every atom, so there must be
      many signals. At k = d / 2 OMP is usually still faster with it; beyond, supports get too
      ill-conditioned for it.
    rows: neither. Also where the number of signals is symbolic and as far as known 1.

    Accelerators always take `ON_ACCELERATORS`: rows, because gathers are expensive there and
    products cheap, and sums over atoms in one reduction, because every pass of a loop is several
    kernel launches.
    """
    num_signals = num_signals if isinstance(num_signals, int) else 1
    if width <= 4 and num_atoms * width <= 256:
        return "columns"
    many = num_signals * (sparsity - 1) >= num_atoms
    if 4 * rows_a_step <= width and many:
        return "gram"
    return "rows"


@dataclasses.dataclass(frozen=True)
class Atoms:
    """The atoms of a coder.

    Attributes:
      vectors: `(m, d)`, each of norm 1 or 0.
      gram: `(m, m)` their inner products, or None if it is not computed.
      axis: of a block, that along which a vector runs: 1 if signals are rows, 0 if columns.
      at_once: whether a sum over atoms or directions is one reduction, not a loop.
    """

    vectors: jax.Array
    gram: jax.Array | None
    axis: int
    at_once: bool = False

    @classmethod
    def in_form(cls, vectors, form):
        """Returns the atoms for a form that `choose_form` names."""
        gram = matmul(vectors, vectors.T) if form == "gram" else None
        axis = 0 if form == "columns" else 1
        return cls(vectors, gram, axis, at_once=form == ON_ACCELERATORS)

    @property
    def num_atoms(self):
        """m, of which an index of m means none."""
        return len(self.vectors)

    def block(self, signals):
        """Returns signals `(b, d)` as a block."""
        return signals if self.axis == 1 else signals.T

    def correlations(self, vectors):
        """Returns the inner products of a block of vectors with every atom, a block `m` wide."""
        if self.axis == 1:
            return matmul(vectors, self.vectors.T)
        return matmul(self.vectors, vectors)

    def argmax(self, score):
        """Returns index and value `(b,)` of each signal's best atom; the first one in a tie."""
        if self.axis == 1:
            return self.shared(*row_argmax(score))
        best = jnp.max(score, axis=0)
        place = lax.broadcasted_iota(jnp.int32, score.shape, 0)
        first = jnp.min(jnp.where(score == best[None, :], place, score.shape[0] - 1), axis=0)
        return self.shared(first, best)

    def largest(self, values):
        """Returns what `argmax` does, of the sizes of the values."""
        # On a CPU writing the sizes takes longer than finding the largest.
        if self.axis == 0 or self.at_once:
            return self.argmax(jnp.abs(values))
        return self.shared(*row_argmax(values, of_size=True))

    def shared(self, index, value):
        """Returns the best of the devices' indices and values."""
        return index, value

    def each(self, numbers):
        """Returns one number a signal, `(b,)`, shaped to broadcast against a block."""
        return jnp.expand_dims(numbers, self.axis)

    def dot(self, a, b):
        """Returns the inner products `(b,)` of two blocks of vectors, signal by signal."""
        return jnp.sum(a * b, axis=self.axis)

    def take(self, indices):
        """Returns a block of atoms, one for each of the `(b,)` indices."""
        return _take(self.vectors, indices, self.axis)

    def gram_rows(self, indices):
        """Returns a block of correlations, those of one atom for each of the `(b,)` indices."""
        return _take(self.gram, indices, self.axis)

    def gather(self, rows, indices):
        """Returns the rows `(..., w)` of a matrix `(m, w)` that has one for each atom."""
        return rows.at[indices].get(mode="clip")

    def agreed(self, code):
        """Returns a code as a result that all devices share."""
        return code

    def pick(self, block, indices):
        """Returns the numbers `(k, b)` at the `(k, b)` indices, each in its own signal's vector."""
        if self.axis == 1:
            return jnp.take_along_axis(block, indices.T, axis=1, mode="clip").T
        return jnp.take_along_axis(block, indices, axis=0, mode="clip")

    def add_at(self, block, code):
        """Returns the block plus the `(k, b)` code's coefficients at its indices."""
        signal = 1 - self.axis
        return jax.vmap(lambda x, i, c: x.at[i].add(c), in_axes=(signal, 1, 1), out_axes=signal)(
            block, *code
        )

    def add(self, total, weights, indices, count):
        """Returns a block of vectors plus the weighted sum of each signal's first `count` atoms.

        Args:
          total: block `d` wide.
          weights: `(k, b)`.
          indices: `(k, b)`.
          count: at most k; may be traced.
        """
        if self.at_once:
            used = jnp.where(jnp.arange(len(weights))[:, None] < count, weights, 0)
            return total + jnp.sum(used[:, :, None] * _take(self.vectors, indices, axis=1), axis=0)
        return _add_rows(total, weights, indices, count, self.vectors, self.axis)

    def add_correlations(self, total, weights, indices, count):
        """Returns a block of correlations plus those of the same sum of atoms. Needs `gram`."""
        return _add_rows(total, weights, indices, count, self.gram, self.axis)

    def best_step(self, gradient, indices, count):
        """Returns the step that lowers the error most along a gradient, and that direction.

        For g the `(k, b)` gradient at the indices: argmin over t of ||r - t g D||^2, and g D.
        """
        shape = indices.shape[1], self.vectors.shape[1]
        zeros = jnp.zeros(shape if self.axis == 1 else shape[::-1], gradient.dtype)
        direction = self.add(zeros, gradient, indices, count)
        squared = self.dot(direction, direction)
        step = jnp.sum(gradient**2, axis=0) / jnp.where(squared > 0, squared, 1)
        return lax.optimization_barrier((step, direction))


@dataclasses.dataclass(frozen=True)
class ShardedAtoms(Atoms):
    """Atoms of which each device along an axis of a mesh holds a part, inside `shard_map`.

    Correlations are those of the device's part; an index is that among all atoms. A step of a
    pursuit exchanges two numbers and one atom a signal.
    """

    axis_name: str = ""

    @property
    def num_atoms(self):
        return len(self.vectors) * num_shards(self.axis_name)

    def shared(self, index, value):
        best = lax.pmax(value, self.axis_name)
        index = jnp.where(value == best, self._first + index, self.num_atoms)
        return lax.pmin(index, self.axis_name), best

    def take(self, indices):
        return self.gather(self.vectors, indices)

    def gather(self, rows, indices):
        place = indices - self._first
        own = (place >= 0) & (place < len(rows))
        found = jnp.where(own[..., None], super().gather(rows, jnp.where(own, place, 0)), 0)
        return lax.psum(found, self.axis_name)

    def agreed(self, code):
        return jax.tree.map(lambda x: lax.pmax(x, self.axis_name), code)

    @property
    def _first(self):
        """Index among all of the first atom of this device."""
        return lax.axis_index(self.axis_name) * len(self.vectors)


def num_shards(axis_name):
    """Returns how many devices the axis of a mesh has; 1 for None."""
    return 1 if axis_name is None else lax.psum(1, axis_name)


def _take(matrix, indices, axis):
    # Unused places hold index m.
    if axis == 1:
        return matrix.at[indices].get(mode="clip")
    return matrix.T.at[:, indices].get(mode="clip")


@functools.partial(jax.custom_jvp, nondiff_argnums=(5,))
def _add_rows(total, weights, indices, count, matrix, axis):
    """Gathers inside the sum: a buffer of the gathered rows would cost ten times as much."""
    k = weights.shape[0]
    rows = min(_ROWS_A_PASS, k)
    padding = ((0, -k % rows), (0, 0))
    weights = jnp.pad(jnp.where(jnp.arange(k)[:, None] < count, weights, 0), padding)
    indices = jnp.pad(indices, padding)

    def add(i, total):
        for place in range(rows):
            weight, index = (row(x, rows * i + place) for x in (weights, indices))
            total = total + jnp.expand_dims(weight, axis) * _take(matrix, index, axis)
        return total

    return fori_loop(0, -(-count // rows), add, total)


@_add_rows.defjvp
def _add_rows_jvp(axis, primals, tangents):
    """Over all k rows: a loop whose length is traced has no reverse mode."""
    _, weights, indices, count, matrix = primals
    d_total, d_weights, _, _, d_matrix = tangents

    def add(j, d_total):
        weight, d_weight = (
            jnp.expand_dims(jnp.where(j < count, x[j], 0), axis) for x in (weights, d_weights)
        )
        d_row = _take(d_matrix, indices[j], axis)
        return d_total + d_weight * _take(matrix, indices[j], axis) + weight * d_row

    return _add_rows(*primals, axis), fori_loop(0, len(weights), add, d_total)
