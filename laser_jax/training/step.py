"""One training step."""

import jax
import jax.numpy as jnp
import optax

from laser_jax import compiler
from laser_jax.images import to_network, to_unit
from laser_jax.metrics import active_atoms, psnr
from laser_jax.sharding import replicated, split_batch
from laser_jax.sparse import perplexity, usage
from laser_jax.training.gradients import Gradients
from laser_jax.training.optimizer import average_decay, update_average


class TrainStep:
    """The compiled step: `(state, images uint8 (b, H, W, C)) -> (state, metrics, images)`.

    `metrics` are scalars of this batch; the last item is the reconstructions in [0, 1]. If the
    loss, a gradient or any number of the new state is not finite, `metrics["finite"]` is False
    and nothing of the state changes except its step. The state is donated.

    Call it with `adversarial=True` at the steps where `Adversary.is_active`. This is a separate
    program: under a `cond`, XLA's convolutions are up to 15 times slower on CPUs.
    """

    def __init__(self, setup):
        self._config, self._mesh, self._model = setup.config, setup.mesh, setup.model
        self._optimizer, self._lpips_params = setup.optimizer, setup.lpips_params
        self._gradients = Gradients(setup)
        everywhere = replicated(setup.mesh)
        self._jitted = compiler.jit(
            self._step,
            static_argnames="adversarial",
            donate_argnums=0,
            out_shardings=(everywhere, everywhere, split_batch(setup.mesh)),
        )

    def __call__(self, state, images, adversarial=False):
        """Returns the new state, the metrics and the reconstructions."""
        # LPIPS' parameters are an argument, so that XLA does not compile them as constants.
        return self._jitted(state, images, lpips_params=self._lpips_params, adversarial=adversarial)

    def lower(self, state, images, adversarial=False):
        """Returns the lowered program; the arguments may be `jax.ShapeDtypeStruct`s."""
        return self._jitted.lower(
            state, images, lpips_params=self._lpips_params, adversarial=adversarial
        )

    def _step(self, state, images, lpips_params, adversarial=False):
        inputs = to_network(images)
        terms, grads, output, extra = self._gradients(state, inputs, lpips_params, adversarial)
        params, atoms, opt_state = self._optimizer.update(
            grads, state.opt_state, state.params, state.dictionary["atoms"]
        )
        dictionary, replaced, code = self._adapt(state, atoms, output)
        if self._model.bottleneck.learns_by_gradient:
            opt_state = self._optimizer.reset_moments(opt_state, replaced)
        new = state.replace(
            params=params,
            dictionary=dictionary,
            opt_state=opt_state,
            ema_params=self._averages(state, params, dictionary["atoms"], replaced),
            extra=extra,
        )
        reconstruction = to_unit(output.reconstruction)
        metrics = {
            **terms,
            "psnr": jnp.mean(psnr(to_unit(inputs), reconstruction)),
            **self._code_metrics(dictionary, code, output.code),
            "grad_norm": optax.global_norm(grads),
            "learning_rate": self._optimizer.schedule(state.step),
        }
        # Checked inside the step, so that no such number reaches the state. The norm of the
        # gradients is finite only if their squares are, and so are Adam's updates. Checking the
        # gradients alone lets XLA fuse the choice below with Adam's loop over the parameters.
        metrics["finite"] = all_finite((terms["loss"], metrics["grad_norm"], dictionary, extra))
        new = jax.tree.map(lambda new, old: jnp.where(metrics["finite"], new, old), new, state)
        return new.replace(step=state.step + 1), metrics, reconstruction

    def _adapt(self, state, atoms, output):
        """Returns the new dictionary, which atoms were replaced, and the replicated code."""
        # Latents and code are small compared with the images. Every device gathers all of them
        # and computes the same dictionary, instead of communicating for each atom of a sweep.
        latents, code = jax.lax.with_sharding_constraint(
            (output.latents, output.code), replicated(self._mesh)
        )
        step = state.step + 1
        dictionary, replaced = self._model.bottleneck.adapt_and_mark(
            {**state.dictionary, "atoms": atoms}, latents, code, step=step,
            key=jax.random.fold_in(jax.random.key(self._config.seed), step),
        )  # fmt: skip
        return dictionary, replaced, code

    def _averages(self, state, params, atoms, replaced):
        """Returns the new moving averages; that of a replaced atom is the new atom."""
        decay = average_decay(self._config.optimizer.ema_decay, state.step)
        new = {"params": params, "atoms": atoms}
        new = update_average(state.ema_params, {k: new[k] for k in state.ema_params}, decay)
        if "atoms" in new:
            new["atoms"] = jnp.where(replaced[:, None], atoms, new["atoms"])
        return new

    def _code_metrics(self, dictionary, code, split_code):
        """Returns the metrics of a code: replicated, and split over the devices."""
        bottleneck = self._model.bottleneck
        atoms_used = jnp.mean(active_atoms(split_code) * 1.0)
        uses = usage(bottleneck.entries(code), bottleneck.num_entries)
        return {
            "active_atoms": atoms_used,
            "sparsity": atoms_used / bottleneck.num_embeddings,
            "dictionary_perplexity": perplexity(uses),
            "dictionary_usage": bottleneck.share_in_use(dictionary, code),
            **bottleneck.further_metrics(dictionary),
        }


def all_finite(tree):
    """Returns whether every number of a tree of arrays is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
