"""One training step, and the state before the first."""

import functools

import jax
import jax.numpy as jnp
import optax

from laser_jax.images import to_network, to_unit
from laser_jax.losses import reconstruction_loss
from laser_jax.metrics import active_atoms, psnr
from laser_jax.optimizer import update_average
from laser_jax.sharding import put_batch, replicated, split_batch
from laser_jax.sparse import perplexity, usage
from laser_jax.train_state import init_state


def initial_state(config, model, optimizer, mesh):
    """Returns the state at step 0 on every device, the dictionary still random."""
    return jax.jit(_init(config, model, optimizer), out_shardings=replicated(mesh))()


def abstract_state(config, model, optimizer, mesh):
    """Returns the shapes, dtypes and shardings of a state, to restore onto."""
    everywhere = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        jax.eval_shape(_init(config, model, optimizer)),
    )


def _init(config, model, optimizer):
    return functools.partial(
        init_state,
        model,
        optimizer,
        seed=config.seed,
        image_size=config.data.image_size,
        ema_decay=config.optimizer.ema_decay,
    )


def init_dictionary(state, model, config, batches, mesh):
    """Returns the state with a dictionary taken from the latents of the first batches.

    As many batches as give four signals an atom, 32 at most.
    """
    signals = config.data.batch_size * config.data.image_size**2 // model.signal_pixels
    count = min(32, -(-4 * model.bottleneck.num_embeddings // signals))

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def latents_of(params, images):
        return model.apply({"params": params}, to_network(images), method="encode")

    latents = [latents_of(state.params, put_batch(next(batches), mesh)) for _ in range(count)]
    init = jax.jit(model.bottleneck.init_dictionary, out_shardings=replicated(mesh))
    dictionary = init(state.dictionary, jnp.concatenate(latents), key=jax.random.key(config.seed))
    ema_params = dict(state.ema_params)
    if "atoms" in ema_params:
        # A copy: a step that is given one buffer twice cannot take both over.
        ema_params["atoms"] = jnp.copy(dictionary["atoms"])
    return state.replace(dictionary=dictionary, ema_params=ema_params)


def make_train_step(model, optimizer, config, mesh):
    """Returns the jitted step `(state, images uint8 (b, H, W, C)) -> (state, metrics, images)`.

    `metrics` are scalars of this batch; the last item is the reconstructions in [0, 1].
    The state is donated.
    """

    def train_step(state, images):
        inputs = to_network(images)

        def loss_of(params, atoms):
            dictionary = {**state.dictionary, "atoms": atoms}
            variables = state.replace(params=params, dictionary=dictionary).variables()
            output = model.apply(variables, inputs)
            recon_loss = reconstruction_loss(inputs, output.reconstruction, **config.loss)
            return recon_loss + output.loss, (recon_loss, output)

        grad = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (loss, (recon_loss, output)), grads = grad(state.params, state.dictionary["atoms"])
        params, atoms, opt_state = optimizer.update(
            grads, state.opt_state, state.params, state.dictionary["atoms"]
        )
        # Latents and code are small beside the images: every device takes them all and makes
        # the same dictionary, instead of a message for every atom of a sweep.
        latents, code = jax.lax.with_sharding_constraint(
            (output.latents, output.code), replicated(mesh)
        )
        step = state.step + 1
        key = jax.random.fold_in(jax.random.key(config.seed), step)
        dictionary = model.bottleneck.adapt(
            {**state.dictionary, "atoms": atoms}, latents, code, step=step, key=key
        )
        ema_params = update_average(
            state.ema_params,
            {
                name: {"params": params, "atoms": dictionary["atoms"]}[name]
                for name in state.ema_params
            },
            config.optimizer.ema_decay,
        )
        reconstruction = to_unit(output.reconstruction)
        m = model.bottleneck.num_embeddings
        atoms_used = jnp.mean(active_atoms(output.code) * 1.0)
        metrics = {
            "loss": loss,
            "recon_loss": recon_loss,
            "bottleneck_loss": output.loss,
            "psnr": jnp.mean(psnr(to_unit(inputs), reconstruction)),
            "active_atoms": atoms_used,
            "sparsity": atoms_used / m,
            "dictionary_perplexity": perplexity(usage(code, m)),
            "dictionary_usage": jnp.mean(dictionary["usage"] >= config.model.min_usage),
            "grad_norm": optax.global_norm(grads),
            "learning_rate": optimizer.schedule(state.step),
        }
        state = state.replace(
            step=step,
            params=params,
            dictionary=dictionary,
            opt_state=opt_state,
            ema_params=ema_params,
        )
        return state, metrics, reconstruction

    everywhere = replicated(mesh)
    return jax.jit(
        train_step,
        donate_argnums=0,
        out_shardings=(everywhere, everywhere, split_batch(mesh)),
    )
