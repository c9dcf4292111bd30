"""Image autoencoders whose latents are sparse codes in a learned dictionary.

`laser_jax.sparse` is the sparse coding, without Flax. `laser_jax.models` has the Flax modules, and
`laser_jax.load(workdir)` loads a trained run.

Dimensions, everywhere: `b` batch, `H W C` image, `h w` latent grid, `n` signals, `d` signal
width (embedding_dim x patch area), `m` atoms, `k` sparsity. Channels last; atoms and signals
are rows.
"""

__version__ = "0.1.0"


def __getattr__(name):
    # Lazily, so that laser_jax.sparse stays light to import.
    if name == "load":
        from laser_jax.trained import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
