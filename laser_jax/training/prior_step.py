"""One training step of a prior."""

import jax
import jax.numpy as jnp
import optax

from laser_jax import compiler
from laser_jax.priors.transformer import LN2
from laser_jax.sharding import replicated
from laser_jax.training.optimizer import average_decay, update_average
from laser_jax.training.step import all_finite


class PriorStep:
    """The compiled step: `(state, (symbols (b, n, s), labels (b,))) -> (state, metrics, None)`.

    `metrics` are scalars of this batch. If the loss, a gradient or any number of the new state is
    not finite, `metrics["finite"]` is False and nothing of the state changes except its step. The
    state is donated.
    """

    def __init__(self, setup):
        self._config, self._model, self._optimizer = setup.config, setup.model, setup.optimizer
        self._pixels = setup.codec.model.signal_pixels
        everywhere = replicated(setup.mesh)
        self._jitted = compiler.jit(
            self._step, donate_argnums=0, out_shardings=(everywhere, everywhere)
        )

    def __call__(self, state, batch):
        """Returns the new state, the metrics, and None instead of reconstructions."""
        return *self._jitted(state, *batch), None

    def _step(self, state, symbols, labels):
        key = jax.random.fold_in(jax.random.key(self._config.seed), state.step)

        model, (dropout, mask) = self._model, jax.random.split(key)
        if model.layout.alphabets is None:
            model = model.for_symbols(symbols)

        def loss_of(params):
            bits = model.apply(
                {"params": params}, symbols, labels,
                rngs={"dropout": dropout, "mask": mask}, method="training_bits",
            )  # fmt: skip
            return LN2 * bits  # nats a token

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        params, _, opt_state = self._optimizer.update(
            (grads, None), state.opt_state, state.params, None
        )
        decay = average_decay(self._config.optimizer.ema_decay, state.step)
        averages = update_average(
            state.ema_params, {"params": params} if state.ema_params else {}, decay
        )
        new = state.replace(params=params, opt_state=opt_state, ema_params=averages)
        metrics = {
            "loss": loss,
            model.measure: loss / LN2,
            model.measure.replace("token", "pixel"): loss / LN2 / self._pixels,
            "grad_norm": optax.global_norm(grads),
            "learning_rate": self._optimizer.schedule(state.step),
        }
        metrics["finite"] = all_finite((loss, metrics["grad_norm"]))
        new = jax.tree.map(lambda new, old: jnp.where(metrics["finite"], new, old), new, state)
        return new.replace(step=state.step + 1), metrics
