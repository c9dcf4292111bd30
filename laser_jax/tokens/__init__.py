"""Codes as integers, their bits, and files.

layout = Layout.of_set(num_atoms=512, sparsity=8, step=0.1)
model = fit_context_model(tokens_of(training_code, layout), layout, dictionary=dictionary)
tokens = tokens_of(code, layout)
bits = model.bits(tokens)
data = pack_tokens([(tokens, (height, width))], model, unit=(8, 8), fingerprint=fingerprint)
"""

from laser_jax.tokens.container import Run, fingerprint_of, read_container, write_container
from laser_jax.tokens.context_model import ContextModel
from laser_jax.tokens.files import one_size, pack_tokens, unpack_tokens
from laser_jax.tokens.fitting import fit_context_model
from laser_jax.tokens.layout import Layout, Tokens, check_tokens, code_of, tokens_of
from laser_jax.tokens.range_coder import RangeDecoder, RangeEncoder

__all__ = [
    "ContextModel",
    "Layout",
    "RangeDecoder",
    "RangeEncoder",
    "Run",
    "Tokens",
    "check_tokens",
    "code_of",
    "fingerprint_of",
    "fit_context_model",
    "one_size",
    "pack_tokens",
    "read_container",
    "tokens_of",
    "unpack_tokens",
    "write_container",
]
