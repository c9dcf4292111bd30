"""One training step, and the state before the first."""

import functools

import jax
import jax.numpy as jnp
import optax

from laser_jax.images import to_network, to_unit
from laser_jax.losses import ImageLoss
from laser_jax.metrics import active_atoms, psnr
from laser_jax.pretrained import load_lpips
from laser_jax.sharding import put_batch, replicated, split_batch
from laser_jax.sparse import perplexity, usage
from laser_jax.training.adversary import build_adversary
from laser_jax.training.optimizer import update_average
from laser_jax.training.state import init_state


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
        adversary=build_adversary(config),
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


def load_lpips_params(config, mesh):
    """Returns LPIPS' parameters on every device, None where the loss does not look at it.

    Raises:
      ValueError: if values of `config.loss` do not fit each other or the images.
      WeightsUnavailable: if it looks at LPIPS and the weights are not there.
    """
    image_loss, size = ImageLoss(**config.loss), config.data.image_size
    params = None
    if config.loss.perceptual_weight:
        params = load_lpips(config.loss.perceptual_net, config.weights.lpips)
        params = jax.jit(lambda x: x, out_shardings=replicated(mesh))(params)
    images = jax.ShapeDtypeStruct((1, size, size, config.data.channels), jnp.float32)
    jax.eval_shape(image_loss, images, images, params)  # for its errors, before any work
    return params


def make_train_step(model, optimizer, config, mesh, lpips_params=None):
    """Returns the jitted step `(state, images uint8 (b, H, W, C)) -> (state, metrics, images)`.

    `metrics` are scalars of this batch; the last item is the reconstructions in [0, 1].
    Where the loss, a gradient or anything of the new state is not finite, `metrics["finite"]` is
    False and the state stays what it was but for its step.
    The state is donated. From the step on where `Adversary.plays`, the caller says
    `adversarial=True`. That is a program of its own: under a `cond` XLA's convolutions are up to
    15 times slower on CPUs.
    """
    image_loss, adversary = ImageLoss(**config.loss), build_adversary(config)

    def differentiate(state, inputs, lpips_params, adversarial):
        """Returns the loss terms, the gradients, the model's output and the new `extra`."""

        def forward(params, atoms):
            dictionary = {**state.dictionary, "atoms": atoms}
            variables = state.replace(params=params, dictionary=dictionary).variables()
            output = model.apply(variables, inputs)
            return (output.reconstruction, output.loss), output

        # The image losses are differentiated by the reconstruction first: that is what the
        # adversarial term's weight is adapted to.
        (reconstruction, bottleneck_loss), backward, output = jax.vjp(
            forward, state.params, state.dictionary["atoms"], has_aux=True
        )
        (loss, terms), image_grad = jax.value_and_grad(image_loss, argnums=1, has_aux=True)(
            inputs, reconstruction, lpips_params
        )
        extra = dict(state.extra)
        if adversarial:
            adversarial_loss, weight, adversarial_grad = adversary.pull(
                extra["discriminator"], state.step + 1, reconstruction, image_grad,
                lambda grad: model.last_layer(backward((grad, jnp.zeros_like(bottleneck_loss)))[0]),
            )  # fmt: skip
            image_grad += adversarial_grad
            loss += weight * adversarial_loss
            extra["discriminator"], discriminator_loss = adversary.learn(
                extra["discriminator"], inputs, reconstruction
            )
            terms |= {
                "adversarial_loss": adversarial_loss,
                "adversarial_weight": weight,
                "discriminator_loss": discriminator_loss,
            }
        terms |= {"loss": loss + bottleneck_loss, "bottleneck_loss": bottleneck_loss}
        return terms, backward((image_grad, jnp.ones_like(bottleneck_loss))), output, extra

    def averages(state, params, atoms, replaced):
        """Returns the new moving averages; that of a replaced atom is the new atom."""
        t = state.step  # averages made; early ones forget the initial weights soon
        decay = jnp.minimum(config.optimizer.ema_decay, (1 + t) / (10 + t))
        new = {"params": params, "atoms": atoms}
        new = update_average(state.ema_params, {k: new[k] for k in state.ema_params}, decay)
        if "atoms" in new:
            new["atoms"] = jnp.where(replaced[:, None], atoms, new["atoms"])
        return new

    def train_step(state, images, lpips_params, adversarial=False):
        inputs, step = to_network(images), state.step + 1
        terms, grads, output, extra = differentiate(state, inputs, lpips_params, adversarial)
        params, atoms, opt_state = optimizer.update(
            grads, state.opt_state, state.params, state.dictionary["atoms"]
        )
        # Latents and code are small beside the images: every device takes them all and makes
        # the same dictionary, instead of a message for every atom of a sweep.
        latents, code = jax.lax.with_sharding_constraint(
            (output.latents, output.code), replicated(mesh)
        )
        key = jax.random.fold_in(jax.random.key(config.seed), step)
        dictionary, replaced = model.bottleneck.adapt_and_mark(
            {**state.dictionary, "atoms": atoms}, latents, code, step=step, key=key
        )
        if model.bottleneck.learns_by_gradient:
            opt_state = optimizer.forget(opt_state, replaced)
        ema_params = averages(state, params, dictionary["atoms"], replaced)
        reconstruction = to_unit(output.reconstruction)
        bottleneck = model.bottleneck
        uses = usage(bottleneck.entries(code), bottleneck.num_entries)
        atoms_used = jnp.mean(active_atoms(output.code) * 1.0)
        metrics = {
            **terms,
            "psnr": jnp.mean(psnr(to_unit(inputs), reconstruction)),
            "active_atoms": atoms_used,
            "sparsity": atoms_used / bottleneck.num_embeddings,
            "dictionary_perplexity": perplexity(uses),
            "dictionary_usage": bottleneck.share_in_use(dictionary, code),
            "grad_norm": optax.global_norm(grads),
            "learning_rate": optimizer.schedule(state.step),
        }
        new = state.replace(
            params=params,
            dictionary=dictionary,
            opt_state=opt_state,
            ema_params=ema_params,
            extra=extra,
        )
        # Inside the step, so that what is not finite never reaches the state. The norm of the
        # gradients is finite only if their squares are, and so what Adam makes of them: looking at
        # them alone lets the choice be part of Adam's own loop over the parameters.
        metrics["finite"] = all_finite((terms["loss"], metrics["grad_norm"], dictionary, extra))
        new = jax.tree.map(lambda new, old: jnp.where(metrics["finite"], new, old), new, state)
        return new.replace(step=step), metrics, reconstruction

    everywhere = replicated(mesh)
    jitted = jax.jit(
        train_step,
        static_argnames="adversarial",
        donate_argnums=0,
        out_shardings=(everywhere, everywhere, split_batch(mesh)),
    )
    # An argument, as the weights of a network inside the program would be compiled with it.
    return functools.partial(jitted, lpips_params=lpips_params)


def all_finite(tree):
    """Returns whether every number of a tree of arrays is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
