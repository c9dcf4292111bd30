"""The sparse code that every bottleneck produces, and quantities computed from it.

A signal `y` of width `d` is written with `k` atoms, rows of a dictionary `D` of
shape `(m, d)`:

    y  ~  sum_j coefficients[j] * D[indices[j]]

Vector quantisation is the case k = 1 with coefficient 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num, Real

from laser_jax.checks import check_at_least, check_code, check_dictionary, check_weights
from laser_jax.sparse.blocks import sum_blocks
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import power_scales
from laser_jax.sparse.loops import scan
from laser_jax.sparse.platforms import default_block_size


class SparseCode(NamedTuple):
    """The atoms of each signal and their coefficients.

    Attributes:
      indices: `(..., k)` int32, the atoms. Distinct within a signal for every
        coder but residual VQ, whose stages use disjoint rows anyway.
      coefficients: `(..., k)` float. Unused places hold 0.
    """

    indices: Int[Array, "*batch k"]
    coefficients: Num[Array, "*batch k"]


@entry(static=("atoms_axis",), like="code")
def decode(
    code: SparseCode, dictionary: Float[Array, "m d"], *, atoms_axis: str | None = None
) -> Float[Array, "*batch d"]:
    """Returns the signals a code stands for, `sum_j c_j d_j`.

    One atom per signal is gathered at a time, so that memory is the size of the result,
    independently of the sparsity.

    Args:
      code: `SparseCode` of shape `(..., k)`.
      dictionary: `(m, d)` float array.
      atoms_axis: as for `omp`: the mesh axis over which the dictionary is sharded.

    Returns:
      `(..., d)` float array.

    Raises:
      ValueError: if the code or the dictionary is not valid.
    """
    code, dictionary = check_code(code), check_dictionary(dictionary)
    if atoms_axis is not None:
        part = own_part(code, dictionary.shape[0], atoms_axis)
        return lax.psum(decode(part, dictionary), atoms_axis)

    @jax.checkpoint  # the reverse mode would store the k atoms of all signals
    def add_atom(total, index_and_coefficient):
        index, coefficient = index_and_coefficient
        atom, coefficient = dictionary[index], coefficient[..., None]
        # An unused place adds nothing, even if its atom is not finite.
        atom = jnp.where((coefficient != 0) | jnp.isfinite(atom), atom, 0)
        return total + coefficient * atom, None

    indices, coefficients = (jnp.moveaxis(x, -1, 0) for x in code)
    dtype = jnp.result_type(coefficients, dictionary)
    zeros = jnp.zeros((*indices.shape[1:], dictionary.shape[-1]), dtype)
    return scan(add_atom, zeros, (indices, coefficients))[0]


def own_part(code, num_atoms, atoms_axis):
    """Returns the part of a code that is in this device's atoms, with indices among those.

    The code itself where `atoms_axis` is None.
    """
    if atoms_axis is None:
        return code
    place, own = _own_place(code.indices, num_atoms, atoms_axis)
    return SparseCode(place, jnp.where(own, code.coefficients, 0))


def take_rows(rows, indices, atoms_axis):
    """Returns the rows `(..., w)` of a matrix that has one for each atom, `(m, w)`, sharded too."""
    if atoms_axis is None:
        return rows[indices]
    place, own = _own_place(indices, len(rows), atoms_axis)
    return lax.psum(jnp.where(own[..., None], rows[place], 0), atoms_axis)


def _own_place(indices, num_atoms, atoms_axis):
    place = indices - lax.axis_index(atoms_axis) * num_atoms
    own = (place >= 0) & (place < num_atoms)
    return jnp.where(own, place, 0), own


@entry(static=("num_atoms",), like="code")
def to_dense(code: SparseCode, num_atoms: int) -> Num[Array, "*batch m"]:
    """Returns the coefficients as full vectors, `(..., num_atoms)`."""
    code = check_code(code)
    check_at_least("num_atoms", num_atoms, 1)
    dense = jnp.zeros((*code.indices.shape[:-1], num_atoms), code.coefficients.dtype)
    add = jnp.vectorize(lambda row, i, c: row.at[i].add(c), signature="(m),(k),(k)->(m)")
    return add(dense, *code)


@entry(static=("num_atoms",))
def usage(code: SparseCode, num_atoms: int) -> Int[Array, " m"]:
    """Returns how many signals use each atom, `(num_atoms,)` int32.

    A signal with a coefficient that is not finite does not count.
    """
    code = _without_nonfinite(check_code(code))
    check_at_least("num_atoms", num_atoms, 1)
    return count(code.indices, num_atoms, where=code.coefficients != 0)


@entry(static=("num_atoms",))
def energy(code: SparseCode, num_atoms: int) -> Float[Array, " m"]:
    """Returns the squared coefficients each atom has, summed over signals, `(num_atoms,)`.

    A signal with a coefficient that is not finite does not count.
    """
    code = _without_nonfinite(check_code(code))
    check_at_least("num_atoms", num_atoms, 1)
    dtype = jnp.promote_types(code.coefficients.dtype, jnp.float32)
    squares = jnp.square(code.coefficients.astype(dtype))
    return sum_by_atom(code.indices.ravel(), squares.reshape(-1, 1), num_atoms)[:, 0]


@entry()
def perplexity(counts: Real[Array, " m"]) -> Float[Array, ""]:
    """Returns the effective number of atoms in use, exp of the usage's entropy.

    1 if only one atom is used, m if all are used equally.

    Args:
      counts: `(m,)` nonnegative weights: `usage` gives the perplexity by count,
        `energy` that by energy. A weight that is not finite counts as 0.
    """
    counts = check_weights("counts", counts)
    counts = jnp.where(jnp.isfinite(counts), counts, 0)
    total = jnp.sum(counts)
    p = counts / jnp.where(total > 0, total, 1)
    return jnp.exp(-jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1))))


def count(values, length, *, where=True):
    """Returns how often each of 0, ..., length - 1 is among the integers, `(length,)` int32.

    Counts are integers, because float32 cannot count beyond 2^24.
    """
    ones = jnp.broadcast_to(where, values.shape).astype(jnp.int32)
    return jnp.zeros(length, jnp.int32).at[values.ravel()].add(ones.ravel())


def sum_by_atom(indices, rows, num_atoms):
    """Returns the sum of the rows `(n, w)` of each index `(n,)`, `(num_atoms, w)`.

    In blocks, as a long sum in float32 is rounded more and more. An index of `num_atoms` is
    left out.
    """

    def add_block(block):
        index, rows = block
        return jnp.zeros((num_atoms, rows.shape[-1]), rows.dtype).at[index[:, 0]].add(rows)

    # Blocks of at least m rows: else adding the sums costs more than making them.
    return sum_blocks(add_block, (indices[:, None], rows), max(num_atoms, 2048))


def sum_over_signals(function, code, signals, num_atoms):
    """Sums function(X, *signals), X the dense codes of one block of signals.

    Args:
      function: of `(b, m)` and the arrays' blocks `(b, d)`, to a pytree.
      code: `SparseCode`.
      signals: arrays `(..., d)`.
      num_atoms: m.
    """
    # Blocks of at least m signals: else adding up (m, m) sums costs more than making them.
    block_size = default_block_size(num_atoms, least=num_atoms)
    return sum_blocks(
        lambda block: function(to_dense(block[0], num_atoms), *block[1:]),
        (code, *signals),
        block_size,
    )


def drop_nonfinite(signals, dictionary, code, atoms_axis=None):
    """Returns all three with zeros where a signal, its coefficients or an atom is not finite.

    Sums over signals outlive a batch as statistics: one NaN would stay in them permanently.
    """
    signal_finite = is_finite(signals) & is_finite(code.coefficients)
    atom_finite = is_finite(dictionary)
    used = signal_finite & (take_rows(atom_finite, code.indices, atoms_axis)[..., 0] > 0)
    return (
        jnp.where(signal_finite, signals, 0),
        jnp.where(atom_finite, dictionary, 0),
        code._replace(coefficients=jnp.where(used, code.coefficients, 0)),
    )


def squared_errors(signals, dictionary, code, weights=None, atoms_axis=None):
    """Returns sum w (y - x D)^2 of each signal, `(...,)`; 0 for one that is not finite."""
    squares = _errors(signals, dictionary, code, atoms_axis) ** 2
    return jnp.sum(squares if weights is None else weights * squares, axis=-1)


def scaled_errors(signals, dictionary, code):
    """Returns `squared_errors` over the square of a power of two: none is lost or infinite."""
    errors = _errors(signals, dictionary, code)
    return jnp.sum((errors / power_scales(errors.ravel())[0]) ** 2, axis=-1)


def _errors(signals, dictionary, code, atoms_axis=None):
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code, atoms_axis)
    return signals - decode(code, dictionary, atoms_axis=atoms_axis)


def is_finite(vectors):
    """Returns whether each vector `(..., d)` is finite, `(..., 1)`."""
    return jnp.all(jnp.isfinite(vectors), -1, keepdims=True)


def _without_nonfinite(code):
    finite = is_finite(code.coefficients)
    return code._replace(coefficients=jnp.where(finite, code.coefficients, 0))
