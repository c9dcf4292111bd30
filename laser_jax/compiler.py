"""`jax.jit` with the compiler options of programs that hold convolutions."""

import functools

import jax
import jax.numpy as jnp

# On CPUs, XLA gives convolutions to YNNPACK by default; Eigen's are faster at the sizes of this
# library. Products and reductions stay with YNNPACK. Each option that this jaxlib does not know is
# left out.
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}


def jit(function, **options):
    """Returns `jax.jit(function, **options)`, compiled with fast convolutions on CPUs.

    JAX accepts compiler options for the outermost program only. A call inside another traced
    function is therefore compiled with the options of that function.
    """
    plain = jax.jit(function, **options)

    @functools.cache
    def outermost(backend):
        compiler_options = _known_cpu_options() if backend == "cpu" else None
        return jax.jit(function, compiler_options=compiler_options, **options)

    @functools.wraps(function)
    def call(*args, **kwargs):
        # A new array is a tracer inside `jit`, even where no argument is one.
        values = jax.tree.leaves((args, kwargs, jnp.zeros(())))
        inside = any(isinstance(x, jax.core.Tracer) for x in values)
        return (plain if inside else outermost(jax.default_backend()))(*args, **kwargs)

    call.lower = lambda *args, **kwargs: outermost(jax.default_backend()).lower(*args, **kwargs)
    return call


@functools.cache
def _known_cpu_options():
    """Returns the options for CPUs that this jaxlib accepts."""
    return {name: value for name, value in _CPU_OPTIONS.items() if _is_known(name, value)}


def _is_known(name, value):
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:  # "No such compile option", or no such value
        return False
    return True
