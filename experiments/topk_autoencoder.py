"""A TopK sparse autoencoder, trained by gradient (Gao et al. 2024).

    code = TopK(ReLU(W_e x + b_e)),  approximation = code D,  D of unit-norm atoms

Vectors have mean 0. The encoder starts as the decoder's transpose. As in the paper, gradients of
the decoder are orthogonal to its atoms, and latents that were not active for a while are dead and
learn the residual of the others (AuxK).

Gao, Dupre la Tour, Tillman, Goh, Troll, Radford, Sutskever, Leike and Wu, Scaling and evaluating
sparse autoencoders, 2024.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from laser_jax.sparse import unit_norm


class TopK(nn.Module):
    """Approximation, code and scores of vectors `(n, d)`."""

    num_atoms: int
    sparsity: int

    @nn.compact
    def __call__(self, vectors):
        d = vectors.shape[-1]
        atoms = self.param("decoder", nn.initializers.zeros, (self.num_atoms, d))
        kernel = self.param("encoder", nn.initializers.zeros, (d, self.num_atoms))
        bias = self.param("bias", nn.initializers.zeros, (self.num_atoms,))
        scores = nn.relu(vectors @ kernel + bias[None, :])
        code = keep_largest(scores, self.sparsity)
        return code @ atoms, code, scores


class State(NamedTuple):
    """Parameters, the optimizer's state, and the steps since each latent was active."""

    params: Any
    optimizer: Any
    idle: jax.Array


class Trainer:
    """Trains a `TopK`.

    Args:
      num_atoms, sparsity: m and k.
      steps: of training, which the schedule of the learning rate needs: a warm-up over the first
        twentieth, and a decay to 0 over the last fifth.
      learning_rate: of Adam.
      patience: steps without activity after which a latent is dead.
      dead_latents: of them, those with the largest scores take part in AuxK.
      dead_weight: of AuxK's loss.
    """

    def __init__(
        self, num_atoms, sparsity, steps, *, learning_rate, patience=100, dead_latents=256,
        dead_weight=1 / 32,
    ):  # fmt: skip
        self.module = TopK(num_atoms, sparsity)
        self.patience, self.dead_weight = patience, dead_weight
        self.dead_latents = min(dead_latents, num_atoms)
        rate = optax.join_schedules(
            [
                optax.linear_schedule(0, learning_rate, max(1, steps // 20)),
                optax.constant_schedule(learning_rate),
                optax.linear_schedule(learning_rate, 0, max(1, steps // 5)),
            ],
            [max(1, steps // 20), steps - max(1, steps // 5)],
        )
        self.optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.999))

    def init(self, key, width):
        """Returns the state before the first step; the atoms start as random directions."""
        atoms = unit_norm(jax.random.normal(key, (self.module.num_atoms, width)))
        params = {"decoder": atoms, "encoder": atoms.T, "bias": jnp.zeros(len(atoms))}
        return State(params, self.optimizer.init(params), jnp.zeros(len(atoms), jnp.int32))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def step(self, state, vectors):
        """Returns the state after a step."""

        def loss(params):
            approximation, code, scores = self.module.apply({"params": params}, vectors)
            error = vectors - approximation
            dead = state.idle > self.patience

            def of_the_dead(operands):
                scores, atoms, error = operands
                code = keep_largest(jnp.where(dead[None, :], scores, 0), self.dead_latents)
                return jnp.sum((error - code @ atoms) ** 2) / jnp.sum(error**2)

            auxiliary = jax.lax.cond(
                jnp.any(dead), of_the_dead, lambda _: jnp.zeros(()),
                (scores, params["decoder"], jax.lax.stop_gradient(error)),
            )  # fmt: skip
            share = jnp.sum(error**2) / jnp.sum(vectors**2)
            return share + self.dead_weight * auxiliary, jnp.any(code > 0, axis=0)

        gradient, active = jax.grad(loss, has_aux=True)(state.params)
        atoms, moves = state.params["decoder"], gradient["decoder"]
        gradient["decoder"] = moves - jnp.sum(moves * atoms, -1, keepdims=True) * atoms
        updates, optimizer = self.optimizer.update(gradient, state.optimizer)
        params = optax.apply_updates(state.params, updates)
        params["decoder"] = unit_norm(params["decoder"])
        return State(params, optimizer, jnp.where(active, 0, state.idle + 1))

    @functools.partial(jax.jit, static_argnums=0)
    def encode(self, params, vectors):
        """Returns the approximation `(n, d)`, and which latents any vector uses, `(m,)`."""
        approximation, code, _ = self.module.apply({"params": params}, vectors)
        return approximation, jnp.any(code > 0, axis=0)


def keep_largest(scores, k):
    """Returns `(n, m)` scores >= 0, all but the k largest of a row 0."""
    values, places = jax.lax.top_k(scores, k)
    return jax.vmap(lambda v, i: jnp.zeros(scores.shape[1], v.dtype).at[i].set(v))(values, places)
