import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import (
    RateModel,
    SparseCode,
    code_bits,
    decode,
    dequantize_coefficients,
    fit_rate_model,
    omp,
    quantize_coefficients,
    rate_distortion_pursuit,
    rate_distortion_stages,
    residual_nearest_atoms,
    to_dense,
    uniform_rate_model,
    unit_norm,
)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    dictionary = unit_norm(jnp.asarray(rng.normal(size=(48, 12)), jnp.float32))
    signals = jnp.asarray(rng.normal(size=(200, 12)), jnp.float32)
    return signals, dictionary


def cost(signals, dictionary, code, model, step, bit_price):
    left = signals - decode(dequantize_coefficients(code, step), dictionary)
    return np.asarray(jnp.sum(left**2, -1) + bit_price * code_bits(code, model))


# Quantisation.


@pytest.mark.parametrize("scales", [0.3, jnp.linspace(0.1, 0.5, 48)])
def test_quantised_coefficients_differ_by_at_most_half_a_step(problem, scales):
    signals, dictionary = problem
    code = omp(signals, dictionary, sparsity=4)
    levels = quantize_coefficients(code, scales, bits=16)
    assert levels.coefficients.dtype == jnp.int32
    back = dequantize_coefficients(levels, scales)
    steps = scales if np.ndim(scales) == 0 else np.asarray(scales)[code.indices]
    np.testing.assert_array_less(np.abs(back.coefficients - code.coefficients), 0.501 * steps)
    np.testing.assert_array_equal(back.indices, code.indices)


def test_levels_beyond_the_bits_are_clipped():
    code = SparseCode(jnp.arange(4), jnp.array([100.0, -100.0, 3e38, 1.0]))
    levels = quantize_coefficients(code, 1.0, bits=4).coefficients
    np.testing.assert_array_equal(levels, [7, -7, 7, 1])
    widest = quantize_coefficients(code, 1.0, bits=32).coefficients
    assert widest[2] > 2**30  # no wrap to a negative number


@pytest.mark.parametrize("bits", [1, 33])
def test_bits_out_of_range_raise(bits):
    code = SparseCode(jnp.zeros(2, jnp.int32), jnp.ones(2))
    with pytest.raises(ValueError, match=f"got {bits}"):
        quantize_coefficients(code, 1.0, bits=bits)


def test_scales_of_another_shape_raise():
    code = SparseCode(jnp.zeros(2, jnp.int32), jnp.ones(2))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        quantize_coefficients(code, jnp.ones((2, 2)), bits=8)


@pytest.mark.parametrize("scales", [0.0, np.float32([0.5, 0.0])])
def test_coefficients_of_scale_zero_become_zero_without_a_nan(scales):
    code = SparseCode(np.arange(2), np.float32([0, 3]))
    with jax.debug_nans(True):
        levels = quantize_coefficients(code, scales, bits=8)
    np.testing.assert_array_equal(levels.coefficients, [0, 0])


# The model.


def test_bits_of_all_codes_are_those_of_a_distribution():
    """Over all sets and levels the probabilities 2^-bits sum to at most one, and nearly so."""
    rng = np.random.default_rng(1)
    m, k, levels = 6, 2, 2
    seen = SparseCode(
        jnp.asarray(np.stack([rng.permutation(m)[:k] for _ in range(500)])),
        jnp.asarray(rng.integers(-levels, levels + 1, size=(500, k))),
    )
    model = fit_rate_model(seen, num_atoms=m, max_level=levels)
    values = [q for q in range(-levels, levels + 1) if q]
    total = 0.0
    for n in range(k + 1):
        for support in itertools.combinations(range(m), n):
            for row in itertools.product(values, repeat=n):
                indices = jnp.array([*support, *[i for i in range(m) if i not in support]][:k])
                code = SparseCode(indices, jnp.array([*row, *[0] * (k - n)]))
                total += 2.0 ** -float(code_bits(code, model))
    # Drawing the same atom twice is what is left over.
    assert 0.8 < total <= 1.0001


def test_code_bits_equal_the_cross_entropy_of_the_fitted_symbols():
    rng = np.random.default_rng(2)
    n, m = 4000, 5
    p = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
    code = SparseCode(jnp.asarray(rng.choice(m, (n, 1), p=p)), jnp.ones((n, 1), jnp.int32))
    model = fit_rate_model(code, num_atoms=m, max_level=1)
    entropy = -np.sum(p * np.log2(p))
    mean = float(jnp.mean(code_bits(code, model)))
    assert mean == pytest.approx(entropy + 1, abs=0.05)  # and the sign's bit


def test_counts_beyond_2_to_the_24_are_exact():
    n, rare = 2**24 + 2**23, 2**21
    code = SparseCode((np.arange(n)[:, None] < rare) * 1, np.ones((n, 1), np.int8))
    model = fit_rate_model(code, num_atoms=2, max_level=1)
    share = rare / n
    np.testing.assert_allclose(model.index_bits, -np.log2([1 - share, share]), rtol=1e-5)
    # No signal has zero atoms: half a count for a symbol that was never seen.
    np.testing.assert_allclose(model.count_bits[0], np.log2(n + 1) + 1, rtol=1e-5)
    np.testing.assert_allclose(model.level_bits, [1.0], rtol=1e-5)


def test_an_atom_that_the_model_does_not_have_has_infinite_bits():
    model = uniform_rate_model(8, sparsity=3, max_level=4)
    indices = np.array([[0, 1, 7], [0, 1, 8], [0, -1, 2]])
    bits = code_bits(SparseCode(indices, np.ones((3, 3), int)), model)
    np.testing.assert_array_equal(np.isfinite(bits), [True, False, False])
    unused = code_bits(SparseCode(indices, np.eye(3, dtype=int)), model)  # of atoms 0, 1 and 2
    assert np.isfinite(unused).all() and np.ptp(unused) == 0


def test_a_set_costs_less_than_a_sequence():
    code = SparseCode(jnp.arange(3)[None, :], jnp.ones((1, 3), jnp.int32))
    model = uniform_rate_model(8, sparsity=3, max_level=4)
    expected = 3 * 3 + 3 * math.log2(8) + math.log2(4) - math.log2(6)
    assert float(code_bits(code, model)[0]) == pytest.approx(expected, rel=1e-6)


def test_each_stage_has_a_separate_table():
    code = SparseCode(jnp.array([[0, 5], [1, 5], [0, 6]]), jnp.array([[1, 1], [1, 0], [1, 1]]))
    model = fit_rate_model(code, num_atoms=8, max_level=1, stages=2, smoothing=1e-6)
    shares = 2.0 ** -np.asarray(model.index_bits)
    np.testing.assert_allclose(shares[:4].sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(shares[4:].sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(shares[[0, 5, 6]], [2 / 3, 1 / 2, 1 / 2], rtol=1e-4)
    assert float(model.level_bits[0]) == 0


# The pursuit.


def test_error_at_price_zero_is_rounding_only(problem):
    signals, dictionary = problem
    model = uniform_rate_model(48, sparsity=12, max_level=1000)
    code = rate_distortion_pursuit(
        signals, dictionary, model, sparsity=12, step=0.01, bit_price=0.0
    )
    left = signals - decode(dequantize_coefficients(code, 0.01), dictionary)
    assert float(jnp.max(jnp.sum(left**2, -1))) < 0.1
    assert float(jnp.mean(jnp.sum(left**2, -1))) < 0.01


def test_codes_at_a_very_high_price_are_empty(problem):
    signals, dictionary = problem
    model = uniform_rate_model(48, sparsity=4, max_level=15)
    code = rate_distortion_pursuit(signals, dictionary, model, sparsity=4, step=0.2, bit_price=1e6)
    assert not np.any(code.coefficients)
    assert all(len(set(row)) == 4 for row in np.asarray(code.indices))


def test_error_falls_as_bits_rise(problem):
    signals, dictionary = problem
    model = uniform_rate_model(48, sparsity=8, max_level=31)
    bits, errors = [], []
    for bit_price in (0.3, 0.1, 0.03, 0.01):
        code = rate_distortion_pursuit(
            signals, dictionary, model, sparsity=8, step=0.3, bit_price=bit_price
        )
        bits.append(float(jnp.mean(code_bits(code, model))))
        errors.append(cost(signals, dictionary, code, model, 0.3, 0.0).mean())
    assert sorted(bits) == bits and sorted(errors, reverse=True) == errors


def test_rate_aware_pursuit_beats_rounded_omp_of_every_sparsity(problem):
    signals, dictionary = problem
    step, bit_price = 0.4, 0.05
    model = uniform_rate_model(48, sparsity=8, max_level=31)
    ours = rate_distortion_pursuit(
        signals, dictionary, model, sparsity=8, step=step, bit_price=bit_price
    )
    lengths = []
    for k in range(1, 9):
        code = quantize_coefficients(omp(signals, dictionary, sparsity=k), step, bits=6)
        lengths.append(cost(signals, dictionary, code, model, step, bit_price))
    empty = ours._replace(coefficients=0 * ours.coefficients)
    lengths.append(cost(signals, dictionary, empty, model, step, bit_price))
    found = cost(signals, dictionary, ours, model, step, bit_price)
    assert found.mean() < 0.97 * np.min(np.mean(lengths, -1))
    # Nor is it far from the best length of rounded OMP for each signal.
    assert found.mean() < 1.03 * np.min(lengths, 0).mean()


def test_cheap_atoms_are_preferred(problem):
    signals, _ = problem
    atom = unit_norm(signals[0])
    twins = jnp.stack([atom, atom, -atom])
    model = RateModel(jnp.array([8.0, 2.0, 8.0]), jnp.ones(31), jnp.zeros(2))
    code = rate_distortion_pursuit(signals[0], twins, model, sparsity=1, step=0.1, bit_price=0.01)
    assert int(code.indices[0]) == 1


def test_hard_signals_have_valid_codes(problem):
    signals, dictionary = problem
    dictionary = dictionary.at[3].set(0).at[4].set(dictionary[5])
    hard = jnp.concatenate([signals[:3] * 0, signals[3:6] * 1e4, signals[6:9] * 1e-6])
    model = uniform_rate_model(48, sparsity=48, max_level=15)
    code = rate_distortion_pursuit(hard, dictionary, model, sparsity=48, step=0.2, bit_price=0.01)
    assert not np.any(code.coefficients[:3]) and not np.any(code.coefficients[6:])
    assert np.max(np.abs(code.coefficients)) == 15  # clipped where the levels end
    assert not np.any((code.indices == 3) & (code.coefficients != 0))
    assert all(len(set(row)) == 48 for row in np.asarray(code.indices))


def test_pursuit_continues_after_a_clipped_level():
    signals, model = np.float32([[100, 50, 30, 0]]), uniform_rate_model(4, sparsity=3, max_level=7)
    code = rate_distortion_pursuit(signals, np.eye(4), model, sparsity=3, step=1.0, bit_price=0.01)
    np.testing.assert_array_equal(code.indices, [[0, 1, 2]])
    np.testing.assert_array_equal(code.coefficients, [[7, 7, 7]])


def test_atoms_of_a_code_are_distinct_even_if_they_cost_nothing(problem):
    signals, dictionary = problem
    free = RateModel(jnp.zeros(48), jnp.zeros(3), jnp.linspace(0, -100, 49))
    code = rate_distortion_pursuit(signals, dictionary, free, sparsity=48, step=0.1, bit_price=1.0)
    assert all(len(set(row)) == 48 for row in np.asarray(code.indices))


@pytest.fixture(scope="module")
def coherent():
    rng = np.random.default_rng(3)
    dictionary = unit_norm(jnp.asarray(rng.normal(size=(256, 32)) + 1, jnp.float32))
    return jnp.asarray(3 * rng.normal(size=(200, 32)) + 1, jnp.float32), dictionary


def test_a_code_depends_on_its_signal_alone(coherent):
    signals, dictionary = coherent
    model = uniform_rate_model(256, sparsity=16, max_level=31)
    options = {"sparsity": 16, "step": 0.2, "bit_price": 0.05}
    together, alone, mixed = (
        to_dense(rate_distortion_pursuit(y, dictionary, model, **options, block_size=b), 256)
        for y, b in ((signals, None), (signals, 1), (jnp.concatenate([10 * signals, signals]), 64))
    )
    used = np.sum(np.asarray(together) != 0, -1)
    assert used.min() < used.max()  # so some are done before others
    # Ties in rounding aside.
    assert np.mean(np.any(alone != together, -1)) < 0.01
    assert np.mean(np.any(mixed[200:] != together, -1)) < 0.01


def test_coefficients_are_for_the_atoms_as_given(problem):
    signals, dictionary = problem
    norms = 2.0 ** np.random.default_rng(4).integers(-3, 4, 48).astype(np.float32)
    model, options = uniform_rate_model(48, sparsity=8, max_level=31), {"sparsity": 8}
    unit = rate_distortion_pursuit(signals, dictionary, model, **options, step=0.2, bit_price=0.01)
    scaled, steps = dictionary * norms[:, None], 0.2 / norms
    code = rate_distortion_pursuit(signals, scaled, model, **options, step=steps, bit_price=0.01)
    jax.tree.map(np.testing.assert_array_equal, code, unit)
    left = cost(signals, scaled, code, model, steps, 0.01)
    np.testing.assert_allclose(left, cost(signals, dictionary, unit, model, 0.2, 0.01), rtol=1e-4)


@pytest.mark.parametrize("norm", [0.001, 100])
def test_an_atom_whose_levels_cannot_reach_the_coefficient_is_not_chosen(norm):
    signal = np.float32([3, 2, 0])
    dictionary = np.float32([[norm, 0, 0], [1, 0, 0], [0, 1, 0]])
    model = uniform_rate_model(3, sparsity=2, max_level=7)
    code = rate_distortion_pursuit(signal, dictionary, model, sparsity=2, step=1.0, bit_price=0.001)
    np.testing.assert_array_equal(code.indices, [1, 2])
    np.testing.assert_array_equal(code.coefficients, [3, 2])


@pytest.mark.parametrize("exponent", [-100, 100])
def test_codes_do_not_depend_on_the_scale(problem, exponent):
    (signals, dictionary), scale = problem, 2.0**exponent
    model, free = (
        uniform_rate_model(48, sparsity=8, max_level=31),
        {"sparsity": 8, "bit_price": 0.0},
    )
    code = rate_distortion_pursuit(signals, dictionary, model, **free, step=0.2)
    for y, atoms, step in (
        (signals * scale, dictionary, 0.2 * scale),
        (signals, dictionary * scale, 0.2 / scale),
    ):
        other = rate_distortion_pursuit(y, atoms, model, **free, step=step)
        jax.tree.map(np.testing.assert_array_equal, other, code)
    model = RateModel(np.full(48, 4.0), np.zeros(1), np.zeros(4))
    code, other = (
        rate_distortion_stages(signals * s, dictionary * s, model, stages=3, bit_price=0.0)
        for s in (1, scale)
    )
    jax.tree.map(np.testing.assert_array_equal, other, code)


def test_steps_of_other_shapes_raise(problem):
    signals, dictionary = problem
    model = uniform_rate_model(48, sparsity=4, max_level=15)
    with pytest.raises(
        ValueError, match=r"step must be a scalar or have shape \(48,\), got \(7,\)"
    ):
        rate_distortion_pursuit(
            signals, dictionary, model, sparsity=4, step=np.ones(7), bit_price=0.1
        )


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_leading_axes_and_blocks_change_nothing(problem, shape):
    signals, dictionary = problem
    y = signals[: math.prod(shape)].reshape(*shape, 12)
    model = uniform_rate_model(48, sparsity=4, max_level=15)
    options = {"sparsity": 4, "step": 0.2, "bit_price": 0.02}
    code = rate_distortion_pursuit(y, dictionary, model, **options)
    assert code.indices.shape == (*shape, 4)
    small = rate_distortion_pursuit(y, dictionary, model, **options, block_size=2)
    jax.tree.map(np.testing.assert_array_equal, code, small)


def test_a_model_of_another_size_raises(problem):
    signals, dictionary = problem
    model = uniform_rate_model(48, sparsity=4, max_level=15)
    with pytest.raises(ValueError, match=r"\(48,\) and \(6,\)"):
        rate_distortion_pursuit(signals, dictionary, model, sparsity=5, step=0.1, bit_price=0.1)


# Stages.


def test_stages_at_price_zero_equal_residual_vq(problem):
    signals, dictionary = problem
    dictionary = dictionary * jnp.repeat(jnp.array([1.5, 0.7, 0.3]), 16)[:, None]
    full = residual_nearest_atoms(signals, dictionary, stages=3)
    model = fit_rate_model(
        full._replace(coefficients=full.coefficients.astype(jnp.int32)),
        num_atoms=48, max_level=1, stages=3,
    )  # fmt: skip
    code = rate_distortion_stages(signals, dictionary, model, stages=3, bit_price=0.0)
    np.testing.assert_array_equal(code.indices, full.indices)


@pytest.mark.parametrize("groups", [(3e4,), (1000, -1000), (3000, -3000)])
@pytest.mark.parametrize("bit_price", [0.0, 0.3])
def test_stages_are_right_for_distant_signals_and_atoms(groups, bit_price):
    """Each takes the least distance + price of its own rows."""
    rng = np.random.default_rng(5)
    centers = np.repeat(groups, 16 // len(groups))[:, None]
    near = np.concatenate([rng.normal(size=(16, 8)) + centers, 0.3 * rng.normal(size=(16, 8))])
    dictionary, bits = np.float32(near), np.float32(rng.uniform(1, 9, 32))
    picks = rng.integers(16, size=200)
    signals = np.float32(dictionary[picks] + rng.normal(size=(200, 8)) / 2)
    model = RateModel(bits, np.zeros(1), np.zeros(3))
    code = rate_distortion_stages(signals, dictionary, model, stages=2, bit_price=bit_price)
    left, expected = np.float64(signals), []
    for atoms, own_bits in zip(np.split(np.float64(dictionary), 2), np.split(bits, 2), strict=True):
        costs = np.sum((left[:, None] - atoms) ** 2, -1) + bit_price * own_bits
        best = np.argmin(costs, -1)
        left = left - atoms[best]
        expected.append(best)
    np.testing.assert_array_equal(code.indices, np.stack(expected, -1) + np.array([0, 16]))


def test_number_of_stages_minimises_the_cost(problem):
    signals, dictionary = problem
    model = RateModel(jnp.full(48, 4.0), jnp.zeros(1), jnp.zeros(4))
    used = []
    for bit_price in (0.0, 0.05, 10.0):
        code = rate_distortion_stages(signals, dictionary, model, stages=3, bit_price=bit_price)
        length = np.sum(code.coefficients, -1)
        # A prefix of the stages, and no length of it is cheaper.
        assert np.all(np.diff(np.asarray(code.coefficients), axis=-1) <= 0)
        best = cost(signals, dictionary, code, model, 1.0, bit_price)
        for n in range(4):
            other = code._replace(
                coefficients=jnp.broadcast_to(jnp.arange(3) < n, code.indices.shape) * 1
            )
            other = cost(signals, dictionary, other, model, 1.0, bit_price)
            np.testing.assert_array_less(best, other + 1e-4)
        used.append(length.mean())
    assert used[0] > used[1] > used[2] == 0
