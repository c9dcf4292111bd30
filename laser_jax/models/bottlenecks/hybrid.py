"""Sparse coding and then vector quantisation: discrete codes of sparse approximations."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool

from laser_jax.models.bottlenecks.dictionary_learning import DictionaryLearning
from laser_jax.models.bottlenecks.output import (
    Atoms,
    Latents,
    Scalar,
    Signals,
    as_pair,
    from_patches,
    mean_square,
)
from laser_jax.models.bottlenecks.vector_quantizer import VectorQuantizer
from laser_jax.ranges import settings_of
from laser_jax.sparse import SparseCode, decode

_SPARSE = "sparse_dictionary"  # entry of the collection: usage and statistics of the other atoms


class HybridQuantizer(VectorQuantizer, kw_only=True):
    """A `VectorQuantizer` of the approximations that `sparse` makes of the signals.

    The code, its tokens and its bits are those of the `VectorQuantizer`: a decoder needs the
    codebook alone. The approximation is quantised, not the coefficients: an entry has d values
    instead of one for each atom, and its error is that of the latents, which a distance between
    coefficients of coherent atoms is not.

    The rows of `atoms` are the codebook, then the atoms of `sparse`. Each learns by its own rule:
    the dictionary from the signals, the codebook from their approximations. The commitment pulls
    latents towards their code. This is the gradient of the commitments of both steps together:
    (z - Dx) + (Dx - q) = z - q.

    Attributes:
      sparse: the `DictionaryLearning` whose approximations are quantised, of the same patch_size
        and embedding_dim. Its commitment_cost has no effect.
      patch_size, num_embeddings, num_stages, ...: of the codebook, as in `VectorQuantizer`.
    """

    sparse: DictionaryLearning

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("patch_size", "embedding_dim"):
            mine, other = getattr(self, name), getattr(self.sparse, name)
            if mine != other:
                raise ValueError(
                    f"{name} of the sparse coding must be that of the codebook, {mine}, "
                    f"got {other}."
                )

    @property
    def codebook(self) -> VectorQuantizer:
        """The codebook alone."""
        fields = {name: getattr(self, name) for name in settings_of(VectorQuantizer)}
        return VectorQuantizer(**fields, parent=None)

    @property
    def learns_by_gradient(self) -> bool:
        return self.learning.by_gradient or self.sparse.learns_by_gradient

    @property
    def learning_rate_scale(self) -> Any:
        """Factor of the learning rate, one for each row of `atoms`."""
        rows = self.num_embeddings, self.sparse.num_embeddings
        scales = self.learning.learning_rate_scale, self.sparse.learning_rate_scale
        return np.repeat(scales, rows)[:, None]

    def random_atoms(self) -> Atoms:
        return jnp.concatenate([super().random_atoms(), self.sparse.random_atoms()])

    def memory(self, atoms: Atoms) -> dict[str, Any]:
        codebook, others = self._split(atoms)
        return self.codebook.memory(codebook) | {_SPARSE: self.sparse.memory(others)}

    def coder_inputs(self, signals: Signals, atoms: Atoms, step: Any) -> tuple[Signals, Atoms]:
        codebook, others = self._split(atoms)
        return self._approximated(self.sparse.choose(signals, others, step), others), codebook

    def loss(self, latents, approximation, code, atoms, step=None):
        """Returns the commitment to the code, and the losses of both parts that have any."""
        target = self.target(latents)
        loss = self.commitment_cost * mean_square(target - lax.stop_gradient(approximation))
        sparse = self.sparse.clone(commitment_cost=0.0, parent=None)
        if not (self.learns_by_gradient or sparse.coefficient_l1_weight or sparse.rate_weight):
            return loss
        others = self._split(atoms)[1]
        signals = self.signals(latents)
        sparse_code = sparse.choose(*lax.stop_gradient((signals, others)), step)
        middle = from_patches(decode(sparse_code, others), as_pair(self.patch_size))
        loss += sparse.loss(target, middle, sparse_code, others, step)
        return loss + self.learning.loss(middle, approximation)

    def further_metrics(self, dictionary: Any) -> dict[str, Scalar]:
        """Returns the share of the atoms of `sparse` that are in use."""
        used = dictionary[_SPARSE]["usage"] >= self.sparse.min_usage
        return {"sparse_dictionary_usage": jnp.mean(used)}

    def init_dictionary(self, dictionary: Any, latents: Latents, *, key: Any) -> Any:
        signals = self.signals(latents)
        others = self.sparse.initial_atoms(signals, key=key)
        approximations = self._approximated(self.sparse.choose(signals, others), others)
        codebook = self.initial_atoms(approximations, key=key)
        return self._started(dictionary, jnp.concatenate([codebook, others]))

    def adapt_and_mark(
        self, dictionary: Any, latents: Latents, code: SparseCode, *, step: Any, key: Any
    ) -> tuple[Any, Bool[Array, " m"]]:
        codebook, others = self._parts(dictionary)
        signals, now = self.signals(latents), {"step": step, "key": key}
        # The code has no room for the sparse code, which is found again.
        sparse_code = self.sparse.choose(signals, others["atoms"], step - 1)
        approximations = self._approximated(sparse_code, others["atoms"])
        codebook, replaced = self.codebook.adapt_to_signals(codebook, approximations, code, **now)
        others, others_replaced = self.sparse.adapt_to_signals(others, signals, sparse_code, **now)
        atoms = jnp.concatenate([codebook["atoms"], others.pop("atoms")])
        new = {**codebook, "atoms": atoms, _SPARSE: others}
        return new, jnp.concatenate([replaced, others_replaced])

    def _approximated(self, sparse_code, atoms):
        """The approximations of signals, of unit norm if the distance is the cosine."""
        return self.constrain(decode(sparse_code, atoms))

    def _split(self, atoms):
        return atoms[: self.num_embeddings], atoms[self.num_embeddings :]

    def _parts(self, dictionary):
        """The collections of the codebook and of the atoms of `sparse`."""
        codebook, others = self._split(dictionary["atoms"])
        rest = dict(dictionary)
        memory = rest.pop(_SPARSE)
        return {**rest, "atoms": codebook}, {**memory, "atoms": others}
