"""Probability models of tokens: the bits of codes, and samples.

    model = TokenTransformer(layout=layout, grid=(8, 8))
    prior = TokenModel(model, variables)
    bits = prior.bits(tokens)
    tokens = prior.sample(jax.random.key(0), 16)

`main.py` trains the variables (`configs/prior_photos.py`); `laser_jax.load` reads them.
"""

from laser_jax.priors.masked import MaskedTokenModel, MaskedTransformer
from laser_jax.priors.start import fitted_start
from laser_jax.priors.token_model import TokenModel
from laser_jax.priors.transformer import TokenTransformer
from laser_jax.priors.vocabulary import Vocabulary

# prior.kind -> the module and the model of tokens.
KINDS = {
    "autoregressive": (TokenTransformer, TokenModel),
    "masked": (MaskedTransformer, MaskedTokenModel),
}

__all__ = [
    "KINDS",
    "MaskedTokenModel",
    "MaskedTransformer",
    "TokenModel",
    "TokenTransformer",
    "Vocabulary",
    "fitted_start",
]
