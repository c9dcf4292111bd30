"""Learns the tables of a `ContextModel` from the tokens of training pictures.

The network of the model in floats, trained by Adam to need few bits, then rounded. It starts from
order-0 tables, and the number of steps follows from the number of tokens, so that little data
changes them little. Scores of atoms start from, and go back to by weight decay, functions of the
dictionary: linear and quadratic forms of its projections, because the sign of an atom does not
matter for sparse codes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from laser_jax.tokens import context_model as integer
from laser_jax.tokens.context_model import FEATURE, MATRIX, NEAR, SENT, UNIT, ContextModel, Side
from laser_jax.tokens.layout import Layout, Tokens, check_tokens

NEAR_WIDTH, HIDDEN_WIDTH, LEVEL_WIDTH, PRODUCT_WIDTH = 24, 32, 16, 16
MOST_ATOMS = 2**16
BATCH, MOST_STEPS, LEARNING_RATE, DECAY = 512, 1200, 4e-3, 1e-3
PASSES = 6  # passes over the symbols, if there are few
FEWEST = 2048  # fewer symbols get order-0 tables, without a network
DECAYED = ("atom_free", "sent", "level_atom", "product_sent")
LN2 = float(np.log(2))


def fit_context_model(
    tokens: Tokens | list[Tokens],
    layout: Layout,
    *,
    dictionary: Float[Array | np.ndarray, "m d"] | None = None,
    side: Side | list[Side] | None = None,
    seed: int = 0,
    most_steps: int = MOST_STEPS,
) -> ContextModel:
    """Returns the `ContextModel` of tokens.

    Args:
      tokens: `Tokens` `(b, h, w)` of training pictures, or a list of them of several sizes.
      layout: their `Layout`.
      dictionary: `(m, d)` atoms of the code. It improves the tables; atoms that are not finite
        count as 0.
      side: integers `(b, h, w, f)` that the decoder will have too, or a list of them.
      seed: of the network's start and of the order of the data.
      most_steps: of training; fewer if there are few tokens. 0: order-0 tables, which know no
        neighbours, only how often the picture has used an atom so far.

    Raises:
      ValueError: if tokens do not have the layout, or there are none; if the dictionary has another
        number of rows; if there are more than 65,536 atoms.
    """
    tokens = [tokens] if isinstance(tokens, Tokens) else list(tokens)
    if side is None:
        sides: list = [None] * len(tokens)
    else:
        sides = [side] if hasattr(side, "shape") else list(side)
    if len(sides) != len(tokens):
        raise ValueError(f"{len(tokens)} groups of tokens have side information of {len(sides)}.")
    for part in tokens:
        check_tokens(part, layout)
    filled = [i for i, part in enumerate(tokens) if part.counts.size]
    if not filled:
        raise ValueError("tokens must have at least one position, got none.")
    tokens, sides = [tokens[i] for i in filled], [sides[i] for i in filled]
    if layout.num_atoms > MOST_ATOMS:
        raise ValueError(f"a context model takes up to 65,536 atoms, got {layout.num_atoms}.")
    vectors = np.zeros((layout.num_atoms, 1))
    if dictionary is not None:
        vectors = layout.vectors(dictionary) * (
            np.asarray(layout.steps).reshape(-1, 1) if np.ndim(layout.steps) == 0 else 1
        )
        vectors = np.where(np.isfinite(vectors).all(1, keepdims=True), vectors, 0)
    data = _data_of(tokens, sides)
    start, fixed = _start(layout, vectors, data, np.random.default_rng(seed))
    symbols = len(data["places"]) + len(data["counts"]) * (not layout.full)
    steps = min(most_steps, PASSES * symbols // BATCH) * (symbols >= FEWEST)
    params = _trained(start, fixed, data, layout, steps, seed) if steps else start
    tables = _rounded(jax.device_get(params), jax.device_get(fixed))
    return _with_uses(ContextModel(layout, tables), tokens, sides)


def _data_of(tokens, sides):
    """All positions in rows: their tokens, the rows of their neighbours, their side."""
    found, rows = [], 0
    for part, side in zip(tokens, sides, strict=True):
        b, h, w = shape = part.counts.shape
        number = np.full((b, h + 1, w + 2), -1)
        number[:, 1:, 1:-1] = np.arange(b * h * w).reshape(shape) + rows
        rows += b * h * w
        around = number[:, 1:, :-2], number[:, :-1, 1:-1], number[:, :-1, :-2], number[:, :-1, 2:]
        width = 0 if side is None else np.shape(side)[-1]
        scaled = integer._check_side(side, shape, width) / FEATURE
        k = part.atoms.shape[-1]
        found.append(
            (
                part.counts.ravel(), part.atoms.reshape(-1, k), part.levels.reshape(-1, k),
                np.stack(around, -1).reshape(-1, 4), scaled.reshape(b * h * w, width),
            )
        )  # fmt: skip
    names = ("counts", "atoms", "levels", "around", "side")
    data = {
        name: np.concatenate(x) for name, x in zip(names, zip(*found, strict=True), strict=True)
    }
    data["side"] = data["side"].astype(np.float32)
    most = max(1, int(data["counts"].max(initial=0)))
    data |= {name: data[name][:, :most] for name in ("atoms", "levels")}
    data["places"] = np.argwhere(np.arange(data["atoms"].shape[1]) < data["counts"][:, None])
    return data


def _start(layout, vectors, data, rng):
    """The parameters before training: order-0 tables, and projections of the dictionary."""
    m, k, hidden, level = layout.num_atoms, layout.width, HIDDEN_WIDTH, LEVEL_WIDTH
    used = np.arange(data["atoms"].shape[1]) < data["counts"][:, None]
    basis = np.linalg.svd(vectors, full_matrices=False)[2]
    near = _padded(vectors @ basis[:NEAR_WIDTH].T, NEAR_WIDTH)
    f = 4 * NEAR_WIDTH + 12 + data["side"].shape[1]
    sizes = np.minimum(np.abs(data["levels"][used]), integer.MAGNITUDES + 1) - 1
    pairs = np.triu_indices(NEAR_WIDTH)
    params = {
        "near": near / 2,
        "first": np.concatenate(
            [rng.normal(size=(f, hidden + level)) * 0.7 * f**-0.5, np.zeros((f, PRODUCT_WIDTH))], 1
        ),
        "first_bias": np.zeros(hidden + level + PRODUCT_WIDTH),
        "count_weights": np.zeros((hidden, k + 1)),
        "count_bias": _log_shares(data["counts"], k + 1),
        "atom_free": np.zeros((m, hidden)),
        "atom_linear": np.zeros((NEAR_WIDTH, hidden)),
        "atom_quadratic": np.zeros((len(pairs[0]), hidden)),
        "atom_bias": _log_shares(data["atoms"][used], m),
        "left": np.zeros((k + 1, hidden)), "place": np.zeros((k, hidden)),
        "sent": np.zeros((m, hidden)),
        "level_count": np.zeros((k + 1, level)), "level_sent": np.zeros((SENT + 1, level)),
        "level_atom": np.zeros((m, level)), "level_sign": rng.normal(size=(2, level)) * 0.3,
        "level_weights": np.zeros((level, integer.MAGNITUDES + 1)),
        "level_bias": _log_shares(sizes, integer.MAGNITUDES + 1),
        "product": _padded(near[:, :PRODUCT_WIDTH], PRODUCT_WIDTH),
        "product_sent": np.zeros((m, PRODUCT_WIDTH)),
    }  # fmt: skip
    quadratic = near[:, pairs[0]] * near[:, pairs[1]]
    fixed = {"linear": near, "quadratic": quadratic / max(quadratic.std(), 1e-6)}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (params, fixed))


def _padded(columns, width):
    """Columns of standard deviation 1, and zeros up to a width."""
    columns = columns / max(columns.std(), 1e-6)
    return np.pad(columns, ((0, 0), (0, width - columns.shape[1])))


def _log_shares(symbols, size):
    counts = np.bincount(np.ravel(symbols), minlength=size) + 0.5
    return np.log2(counts / counts.sum())


def _trained(params, fixed, data, layout, steps, seed):
    """Adam with weight decay of the free tables, learning rate to 0 by a cosine."""
    arrays = {name: jnp.asarray(x) for name, x in data.items()}
    moments = (jax.tree.map(jnp.zeros_like, params),) * 2
    for step in range(steps):
        params, moments = _update(
            jnp.float32(step), params, moments, fixed, arrays, steps, seed, layout=layout
        )
    return params


@functools.partial(jax.jit, static_argnames="layout")
def _update(step, params, moments, fixed, arrays, steps, seed, *, layout):
    """Returns the parameters and Adam's moments after one of `steps` steps."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    grads = jax.grad(functools.partial(_bits, layout=layout))(params, fixed, arrays, key)
    first, second = moments
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = jax.tree.map(lambda m, g: 0.99 * m + 0.01 * g * g, second, grads)
    rate = LEARNING_RATE * 0.5 * (1 + jnp.cos(jnp.pi * step / steps))
    scale1, scale2 = 1 - 0.9 ** (step + 1.0), 1 - 0.99 ** (step + 1.0)

    def move(name, x):
        change = first[name] / scale1 / (jnp.sqrt(second[name] / scale2) + 1e-8)
        return x - rate * (change + (DECAY / LEARNING_RATE * x if name in DECAYED else 0))

    return {name: move(name, x) for name, x in params.items()}, (first, second)


def _bits(params, fixed, data, key, *, layout):
    """Mean bits of a position: counts of some positions, an atom and a level of some places."""
    key1, key2 = jax.random.split(key)
    n, pairs = len(data["counts"]), len(data["places"])
    total = 0.0
    if not layout.full:
        rows = jax.random.randint(key1, (BATCH // 4,), 0, n)
        hidden = _relu(_first(params, data, rows)[0])
        scores = hidden @ params["count_weights"] + params["count_bias"][None, :]
        total += _cost(scores, data["counts"][rows])
    if pairs:
        rows, place = data["places"][jax.random.randint(key2, (BATCH,), 0, pairs)].T
        known = _first(params, data, rows)
        each = _atom_bits(params, fixed, data, rows, place, known, layout)
        if layout.alphabets is None:
            each += _level_bits(params, data, rows, place, known)
        total += each * (pairs / n)
    return total


def _first(params, data, rows):
    """Hidden units of positions before the ReLU, those of levels, and the product's factors."""
    around = data["around"][rows]
    inside, around = around >= 0, jnp.maximum(around, 0)
    levels = jnp.clip(data["levels"][around], -NEAR, NEAR) * inside[..., None]
    near = jnp.sum(levels[..., None] * params["near"][data["atoms"][around]], 2)
    counts = jnp.where(inside, data["counts"][around], -1)
    features = [
        jnp.clip(near, -128, 128).reshape(len(rows), -1), jnp.clip(counts, 0, 8) / 4,
        counts == 0, inside, data["side"][rows],
    ]  # fmt: skip
    whole = jnp.concatenate(features, -1) @ params["first"] + params["first_bias"][None, :]
    return jnp.split(whole, np.cumsum([HIDDEN_WIDTH, LEVEL_WIDTH]), axis=1)


def _relu(x):
    return jnp.clip(x, 0, integer.HIDDEN / UNIT)


def _cost(scores, symbols):
    logits = jax.nn.log_softmax(scores * LN2)
    return -jnp.mean(jnp.take_along_axis(logits, symbols[:, None], 1)) / LN2


def _before(data, rows, place):
    """Atoms and levels of a signal, and which of them have been sent before a place."""
    atoms = data["atoms"][rows]
    return atoms, data["levels"][rows], jnp.arange(atoms.shape[1])[None, :] < place[:, None]


def _atom_bits(params, fixed, data, rows, place, known, layout):
    atoms, _, sent = _before(data, rows, place)
    left = data["counts"][rows] - place
    hidden = known[0] + jnp.sum(params["sent"][atoms] * sent[..., None], 1)
    hidden = _relu(hidden + params["left"][left] + params["place"][place])
    scores = hidden @ _atom_table(params, fixed).T + params["atom_bias"][None, :]
    columns, symbol = (
        jnp.arange(layout.num_atoms)[None, :],
        jnp.take_along_axis(atoms, place[:, None], 1),
    )
    if layout.alphabets is not None:
        starts, sizes = (jnp.asarray(x)[place, None] for x in (layout.starts, layout.alphabets))
        valid = (columns >= starts) & (columns < starts + sizes)
    else:
        previous = jnp.take_along_axis(atoms, jnp.maximum(place - 1, 0)[:, None], 1)
        first = jnp.where(place[:, None] > 0, previous + 1, 0)
        weights = jnp.where(columns >= first, jax.nn.softmax(scores * LN2), 0) + 1e-12
        tails = _tails(weights)
        share = jnp.maximum(tails - weights, 0) / tails[:, :1]
        scores += jnp.maximum(left - 1, 0)[:, None] * jnp.log2(share + 2.0**-17)
        valid = (columns >= first) & (columns <= layout.num_atoms - left[:, None])
    return _cost(jnp.where(valid, scores, -1e4), symbol[:, 0])


def _tails(weights):
    """Sums of each weight and those after it, by products of matrices: cumsum is slow on CPUs."""
    (n, m), size = weights.shape, 64
    blocks = jnp.pad(weights, ((0, 0), (0, -m % size))).reshape(n, -1, size)
    inside = jnp.matmul(blocks, jnp.tri(size), precision="highest")
    later = jnp.matmul(inside[..., 0], jnp.tri(blocks.shape[1], k=-1), precision="highest")
    return (inside + later[..., None]).reshape(n, -1)[:, :m]


def _atom_table(params, fixed):
    forms = fixed["linear"] @ params["atom_linear"] + fixed["quadratic"] @ params["atom_quadratic"]
    return params["atom_free"] + forms


def _level_bits(params, data, rows, place, known):
    atoms, levels, sent = _before(data, rows, place)
    atom, level = (jnp.take_along_axis(x, place[:, None], 1)[:, 0] for x in (atoms, levels))
    near = jnp.clip(levels, -NEAR, NEAR) * sent
    factors = known[2] + jnp.sum(near[..., None] * params["product_sent"][atoms], 1)
    sign_score = jnp.sum(factors * params["product"][atom], -1)
    sign_score = jnp.clip(sign_score, -integer.HIDDEN / UNIT, integer.HIDDEN / UNIT)
    scores = jnp.stack([sign_score, jnp.zeros_like(sign_score)], 1)
    bits = _cost(scores, (level < 0) * 1)
    agreed = sign_score * jnp.sign(level)
    sizes = jnp.minimum(jnp.sum(jnp.abs(levels) * sent, 1), SENT)
    units = known[1] + params["level_count"][data["counts"][rows]] + params["level_atom"][atom]
    units += params["level_sent"][sizes]
    units += jnp.maximum(agreed, 0)[:, None] * params["level_sign"][:1]
    units += jnp.maximum(-agreed, 0)[:, None] * params["level_sign"][1:]
    scores = _relu(units) @ params["level_weights"] + params["level_bias"][None, :]
    return bits + _cost(scores, jnp.minimum(jnp.abs(level), integer.MAGNITUDES + 1) - 1)


def _rounded(params, fixed):
    """The integer tables: each in its unit, bounded so that no sum of products overflows."""
    params["atom_weights"] = np.asarray(_atom_table(params, fixed))
    for name in ("atom_free", "atom_linear", "atom_quadratic"):
        del params[name]
    units = dict.fromkeys(params, UNIT) | {"near": FEATURE, "first": MATRIX}
    limits = dict.fromkeys(params, 2**15 - 1)
    # Products of these with 2^12 and less, a few dozen of them, are summed in int32.
    limits |= dict.fromkeys(("atom_weights", "count_weights", "level_weights"), 2**12 - 1)
    return {
        name: np.clip(np.rint(x * units[name]), -limits[name], limits[name]).astype(np.int32)
        for name, x in params.items()
    } | {"adapt": np.array([0, 1], np.int32)}


def _with_uses(model, tokens, sides):
    """The model with the weight of a picture's own uses that saves most in training pictures."""
    sample = []
    for part, side in list(zip(tokens, sides, strict=True))[:: -(-len(tokens) // 2)]:
        b, h, w = part.counts.shape
        every = -(-b * h * w // 4096)  # positions are enough
        cut = [x[::every] for x in part]
        sample.append((Tokens(*cut), side if side is None else side[::every]))
    best, least = model, None
    for adapt in ((0, 1), (8, 1024), (16, 4096)):
        tried = ContextModel(model.layout, model.tables | {"adapt": adapt})
        bits = sum(float(np.sum(tried.bits(part, side=side))) for part, side in sample)
        if least is None or bits < least:
            best, least = tried, bits
    return best
