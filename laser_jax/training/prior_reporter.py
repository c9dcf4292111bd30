"""Reports of a prior's run: held-out bits, their gap to training bits, and samples."""

import functools

import jax
import numpy as np
from PIL import Image

from laser_jax.evaluation.split import evenly_spaced
from laser_jax.figures import atom_sheet
from laser_jax.priors import MaskedTokenModel
from laser_jax.priors.transformer import LN2
from laser_jax.tokens import fit_context_model
from laser_jax.training.reporter import Reporter

_PICTURES = 36  # pictures in a grid of samples


class PriorReporter(Reporter):
    """The `Reporter` of a prior; its data are `TokenSet`s."""

    _figure_name = "samples.png"
    _next = "python -m laser_jax sample --workdir={workdir} --num=64 --out=samples.png"

    def _compile(self, setup):
        self._codec, self._setup = setup.codec, setup
        self._masked = jax.jit(functools.partial(_masked_bits, setup.model))

    def _batch_scalars(self, images, reconstruction):
        return {}

    def _measure(self, step, state):
        prior = self._prior(state)
        shown = evenly_spaced(self._images, len(self._validation))
        held_out = self._bits_per_token(prior, self._validation, slice(None))
        trained = self._bits_per_token(prior, self._images, shown)
        name = self._model.measure
        return {
            "loss": LN2 * held_out,
            name: held_out,
            name.replace("token", "pixel"): held_out / self._codec.model.signal_pixels,
            f"train_{name}": trained,
            f"gap_{name}": held_out - trained,
        }

    def _bits_per_token(self, prior, source, rows):
        if isinstance(prior, MaskedTokenModel):
            return self._masked_bits_per_token(prior, source, rows)
        labels = source.labels[rows] if self._model.num_classes else None
        bits = prior.symbol_bits(source.symbols[rows].astype(np.int32), labels)
        return float(np.mean(bits)) / self._model.num_positions

    def _masked_bits_per_token(self, prior, source, rows):
        """The mean over whole batches, each with the same random masks at every validation."""
        size, found = prior.batch_size, []
        rows = np.arange(len(source))[rows]
        for start in range(0, len(rows), size):
            batch = np.resize(rows[start : start + size], size)
            key = jax.random.fold_in(jax.random.key(self._config.seed), start)
            symbols = source.symbols[batch].astype(np.int32)
            found.append(self._masked(prior.variables, symbols, source.labels[batch], key))
        return float(np.mean(found))

    def _prior(self, state):
        params = jax.device_get(state.eval_params())  # so that each process can compute alone
        return self._setup.token_model(params)

    def _pictures(self, state):
        return {"val/samples": atom_sheet(self._sampled(state))}

    def _sampled(self, state):
        """Images of tokens drawn with the same random numbers at each validation."""
        classes = self._model.num_classes
        labels = np.arange(_PICTURES) % classes if classes else None
        key = jax.random.key(self._config.seed)
        return self._codec.to_images(self._prior(state).sample(key, _PICTURES, labels=labels))

    def _final_metrics(self, quality):
        """What the validation split costs under tables without a prior, for comparison."""
        tokens = self._model.vocabulary.tokens(self._validation.symbols, self._model.grid)
        pixels = len(self._validation) * self._model.num_positions
        pixels *= self._codec.model.signal_pixels
        order_0 = order_0_tables(self._model, self._images)
        return {
            "val/bits_per_pixel_context_model": float(self._codec.tables.bits(tokens).sum())
            / pixels,
            "val/bits_per_pixel_order_0": float(order_0.bits(tokens).sum()) / pixels,
        }

    def _draw(self, figure, state, shown):
        sheet = np.round(255 * atom_sheet(self._sampled(state))).astype(np.uint8)
        Image.fromarray(sheet).save(figure)


def order_0_tables(model, token_set):
    """Returns tables of the frequencies of a `TokenSet`, which know no neighbours.

    Where that saves bits they mix in how often a picture has used an atom so far.
    """
    tokens = model.vocabulary.tokens(token_set.symbols, model.grid)
    return fit_context_model(tokens, model.layout, most_steps=0)


def _masked_bits(model, variables, symbols, labels, key):
    return model.apply(variables, symbols, labels, rngs={"mask": key}, method="training_bits")
