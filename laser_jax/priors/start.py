"""The parameters that training starts from, fitted to tokens and to the dictionary."""

from typing import Any

import numpy as np

from laser_jax.priors.vocabulary import Vocabulary

_NOISE = 0.3  # weight of the random tables relative to the dictionary


def fitted_start(model: Any, params: Any, symbols: np.ndarray, dictionary: np.ndarray) -> Any:
    """Returns the parameters with order-0 biases, and similar table entries for similar atoms.

    Args:
      model: the module.
      params: its random parameters.
      symbols: `(b, n, s)` of training tokens.
      dictionary: `(m, d)` atoms of the code.
    """
    new = dict(params)
    vocabulary = Vocabulary(
        model.layout, None if model.layout.alphabets else symbols.shape[-1] // 2
    )
    used = np.asarray(vocabulary.used(symbols))
    for group in vocabulary.groups:
        classes = np.asarray(vocabulary.classes(group, symbols[..., group.places]))
        counts = np.bincount(classes[used[..., group.places]], minlength=group.size) + 0.5
        new[f"{group.name}_bias"] = np.log(counts / counts.sum()).astype(np.float32)
    for name, vectors in vocabulary.vectors(dictionary).items():
        if model.layout.alphabets:  # else the sign of an atom is free, and 0 is the middle
            vectors = vectors - vectors.mean(0)
        basis = np.linalg.svd(vectors, full_matrices=False)[2][: model.width]
        table = vectors @ basis.T
        table /= max(np.sqrt(np.mean(np.sum(table**2, 1))), 1e-12)
        table = np.pad(table, ((0, 0), (0, model.width - len(basis))))
        random = np.asarray(new[f"{name}_table"])
        new[f"{name}_table"] = (table + _NOISE * random).astype(np.float32)
    return new
