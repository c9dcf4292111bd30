"""The loss of a training batch and its gradients, of the whole batch or of its parts in turn."""

import jax
import jax.numpy as jnp
import optax


class Gradients:
    """Maps a state and a batch to loss terms, gradients, the model's output and the new `extra`.

    With `optimizer.accumulate_steps` the batch is computed in so many parts, one after the other,
    and only one part's activations are in memory. The gradients are those of the whole batch.
    With a discriminator the forward pass is computed twice then, because the weight of its term
    depends on the gradients of all parts.
    """

    def __init__(self, setup):
        self._model, self._adversary = setup.model, setup.adversary
        self._image_loss = setup.image_loss
        self._parts = setup.config.optimizer.accumulate_steps

    def __call__(self, state, inputs, lpips_params, adversarial):
        """Returns the terms, the gradients of parameters and atoms, the output and `extra`.

        Args:
          state: the `TrainState`.
          inputs: images `(b, H, W, C)` in [-1, 1].
          lpips_params: of the image loss.
          adversarial: whether the discriminator is active.
        """
        if adversarial:
            return self._with_adversary(state, inputs, lpips_params)

        def of_part(inputs):
            terms, output, image_grad, backward = self._losses(state, inputs, lpips_params)
            return (terms, backward(image_grad)), output

        (terms, grads), output = over_parts(of_part, self._parts, inputs)
        return terms, grads, output, dict(state.extra)

    def _losses(self, state, inputs, lpips_params):
        """Returns the terms, the output, the gradient of the image losses, and the backward pass.

        That maps a gradient with respect to the reconstruction to those of parameters and atoms.
        The image losses are differentiated with respect to the reconstruction first: the
        adversarial term's weight is adapted to that gradient.
        """

        def forward(params, atoms):
            dictionary = {**state.dictionary, "atoms": atoms}
            variables = state.replace(params=params, dictionary=dictionary).variables()
            output = self._model.apply(variables, inputs, step=state.step)
            return (output.reconstruction, output.loss), output

        (reconstruction, bottleneck_loss), backward, output = jax.vjp(
            forward, state.params, state.dictionary["atoms"], has_aux=True
        )
        (loss, terms), image_grad = jax.value_and_grad(self._image_loss, argnums=1, has_aux=True)(
            inputs, reconstruction, lpips_params
        )
        terms |= {"loss": loss + bottleneck_loss, "bottleneck_loss": bottleneck_loss}
        # What remains has a row for each image.
        output = output._replace(loss=None, approximation=None)
        return (
            terms,
            output,
            image_grad,
            lambda grad, of_loss=1.0: backward((grad, jnp.full_like(bottleneck_loss, of_loss))),
        )

    def _with_adversary(self, state, inputs, lpips_params):
        discriminator = state.extra["discriminator"]

        def first_pass(inputs):
            terms, output, image_grad, backward = self._losses(state, inputs, lpips_params)
            loss, own_grad = self._adversary.generator_loss(discriminator, output.reconstruction)
            last_layers = [
                self._model.last_layer(backward(grad, of_loss=0.0)[0])
                for grad in (image_grad, own_grad)
            ]
            means = terms | {"adversarial_loss": loss}, last_layers
            return means, (output, image_grad, own_grad), backward

        if self._parts == 1:
            means, rows, backward = first_pass(inputs)
        else:
            means, rows = over_parts(lambda part: first_pass(part)[:2], self._parts, inputs)

            def backward(grad):
                def of_part(inputs, grad):
                    return self._losses(state, inputs, lpips_params)[-1](grad), ()

                return over_parts(of_part, self._parts, inputs, grad)[0]

        (terms, last_layers), (output, image_grad, own_grad) = means, rows
        weight = self._adversary.term_weight(state.step + 1, *map(optax.global_norm, last_layers))
        new, loss = self._adversary.update(
            discriminator, inputs, output.reconstruction, parts=self._parts
        )
        terms |= {
            "loss": terms["loss"] + weight * terms["adversarial_loss"],
            "adversarial_weight": weight,
            "discriminator_loss": loss,
        }
        extra = {**state.extra, "discriminator": new}
        return terms, backward(image_grad + weight * own_grad), output, extra


def over_parts(function, parts, *batch):
    """Applies a function to equal parts of a batch, one after the other.

    A part has every `parts`-th row, so that each device computes its own rows of it.

    Args:
      function: maps arrays with the rows of a part to `(means, rows)`: a pytree of means over
        the part, and one of arrays with a row for each of its rows.
      parts: their number, which divides the batch.
      *batch: arrays or pytrees of them, `(b, ...)`.

    Returns:
      The means over the batch, and the rows in their order in the batch.
    """
    if parts == 1:
        return function(*batch)
    split = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch)

    def of_part(sums, part):
        means, rows = function(*part)
        return jax.tree.map(jnp.add, sums, means), rows

    first = jax.tree.map(lambda x: x[0], split)
    means = jax.eval_shape(lambda part: function(*part)[0], first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), means)
    sums, rows = jax.lax.scan(of_part, zeros, split)
    rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), rows)
    return jax.tree.map(lambda x: x / parts, sums), rows
