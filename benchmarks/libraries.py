"""OMP in several libraries behind one interface.

Each entry is a function `(signals, atoms, sparsity)` that returns two functions: one without
arguments that codes, and one that maps its result to approximations `(n, d)`.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import compiled, installed
from laser_jax import sparse


def ours(coder, **options):
    """Returns the entry of a coder of `laser_jax.sparse`, compiled ahead of the first call."""

    def make(signals, atoms, k):
        run = compiled(functools.partial(coder, sparsity=k, **options), signals, atoms).run
        return run, lambda code: sparse.decode(code, jnp.asarray(atoms))

    return make


def spams_omp(signals, atoms, k):
    import spams

    y, d = np.asfortranarray(signals.T), np.asfortranarray(atoms.T)
    run = functools.partial(spams.omp, y, d, L=k, eps=0.0, lambda1=0.0)
    return run, lambda code: (d @ code).T


SCIKIT_LEARN_SIGNALS = 1000


def scikit_learn_omp(signals, atoms, k):
    """Codes the first `SCIKIT_LEARN_SIGNALS` signals only."""
    from sklearn.linear_model import orthogonal_mp_gram

    signals = signals[:SCIKIT_LEARN_SIGNALS]

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about signals that need fewer atoms
            return orthogonal_mp_gram(atoms @ atoms.T, atoms @ signals.T, n_nonzero_coefs=k)

    return run, lambda code: (atoms.T @ code).T


def torch_omp(signals, atoms, k):
    import torch

    from benchmarks import torch_twins

    y, d = torch_twins.tensor(signals), torch_twins.tensor(atoms)

    def run():
        with torch.no_grad():
            return torch_twins.synchronised(torch_twins.omp(y, d, k))

    return run, lambda code: torch.einsum("nk,nkd->nd", code[1], d[code[0]]).cpu()


def omp_gpu(signals, atoms, k):
    from orthogonal_matching_pursuit_gpu import run_omp

    from benchmarks.torch_twins import synchronised, tensor

    y, d = tensor(signals), tensor(atoms)

    def run():
        return synchronised(run_omp(d.T, y, k, normalize=False, fit_intercept=False))

    return run, lambda code: (code @ d).cpu()


CPU_LIBRARIES = {"SPAMS": ("spams", spams_omp), "scikit-learn": ("sklearn", scikit_learn_omp)}
LIBRARIES = {
    "PyTorch": ("torch", torch_omp),
    "omp-gpu": ("orthogonal_matching_pursuit_gpu", omp_gpu),
}


def omp_rows():
    """Returns name -> entry: ours, and each installed library that computes where JAX does."""
    others = LIBRARIES if jax.default_backend() == "gpu" else CPU_LIBRARIES | LIBRARIES
    rows = {"omp": ours(sparse.omp), "omp, ols": ours(sparse.omp, selection="ols")}
    return rows | {name: make for name, (package, make) in others.items() if installed(package)}
