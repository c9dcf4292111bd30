"""Reports of a prior's run: held-out bits, their gap to training bits, and samples."""

import jax
import numpy as np
from PIL import Image

from laser_jax.figures import atom_sheet
from laser_jax.priors import TokenModel
from laser_jax.priors.transformer import LN2
from laser_jax.tokens import fit_context_model
from laser_jax.training.reporter import Reporter

_PICTURES = 36  # in a grid of samples


class PriorReporter(Reporter):
    """The `Reporter` of a prior; its data are `TokenSet`s."""

    _figure_name = "samples.png"
    _next = "python -m laser_jax sample --workdir={workdir} --num=64 --out=samples.png"

    def _compile(self, setup):
        self._codec = setup.codec

    def _batch_scalars(self, images, reconstruction):
        return {}

    def _measure(self, step, state):
        prior = self._prior(state)
        size = min(len(self._images), len(self._validation))
        shown = np.linspace(0, len(self._images) - 1, size).astype(int)
        held_out = self._bits_per_token(prior, self._validation, slice(None))
        trained = self._bits_per_token(prior, self._images, shown)
        return {
            "loss": LN2 * held_out,
            "bits_per_token": held_out,
            "bits_per_pixel": held_out / self._codec.model.signal_pixels,
            "train_bits_per_token": trained,
            "gap_bits_per_token": held_out - trained,
        }

    def _bits_per_token(self, prior, source, rows):
        labels = source.labels[rows] if self._model.num_classes else None
        bits = prior.symbol_bits(source.symbols[rows].astype(np.int32), labels)
        return float(np.mean(bits)) / self._model.num_positions

    def _prior(self, state):
        params = jax.device_get(state.eval_params())  # so that each process can compute alone
        return TokenModel(self._model, {"params": params}, batch_size=self._config.eval.batch_size)

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
        vocabulary, grid = self._model.vocabulary, self._model.grid
        tokens = vocabulary.tokens(self._validation.symbols, grid)
        pixels = len(self._validation) * self._model.num_positions
        pixels *= self._codec.model.signal_pixels
        train = vocabulary.tokens(self._images.symbols, grid)
        order_0 = fit_context_model(train, self._model.layout, most_steps=0)
        return {
            "val/bits_per_pixel_context_model": float(self._codec.tables.bits(tokens).sum())
            / pixels,
            "val/bits_per_pixel_order_0": float(order_0.bits(tokens).sum()) / pixels,
        }

    def _draw(self, figure, state, shown):
        sheet = np.round(255 * atom_sheet(self._sampled(state))).astype(np.uint8)
        Image.fromarray(sheet).save(figure)
