"""Dictionary learning from streams."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from laser_jax.sparse import DictionaryLearner, coherence, decode, fit_dictionary, omp, usage
from laser_jax.sparse.batches import in_batches

KEY = jax.random.key(0)
# The experiment of Aharon, Elad and Bruckstein (2006), section V.A: 20 dB of noise.
M, D, K, BATCH, NOISE = 50, 20, 3, 250, 0.1 * (3 / 20) ** 0.5
SETTINGS = {"num_atoms": M, "sparsity": K, "batch_size": BATCH, "replace_every": 4}
LEARNER = DictionaryLearner(**SETTINGS)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def draw(seed, n, dictionary):
    """Returns `(n, d)` signals of few atoms each, float32."""
    rng = np.random.default_rng(seed)
    picks = np.argsort(rng.random((n, len(dictionary))), -1)[:, :K]
    values = rng.normal(size=(n, K, 1))
    clean = np.sum(values * dictionary[picks], 1)
    return np.float32(clean + NOISE * rng.normal(size=clean.shape))


TRUTH = unit(np.random.default_rng(7).normal(size=(M, D)))
SIGNALS = draw(0, 8 * BATCH + 10, TRUTH)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_a_stream_recovers_the_known_atoms_and_its_held_out_error_is_that_of_a_fit_in_memory():
    recovered, streamed, in_memory = [], [], []
    for seed in range(2):
        key, truth = jax.random.key(seed), unit(np.random.default_rng(seed).normal(size=(M, D)))
        state = LEARNER.fit((draw((seed, t), BATCH, truth) for t in range(200)), key)
        recovered.append(np.mean(np.max(np.abs(truth @ np.asarray(state.dictionary).T), -1) > 0.99))
        signals, settings = draw((seed, 0, 1), 1500, truth), {"num_atoms": M, "sparsity": K}
        fit = fit_dictionary(
            jnp.asarray(signals), method="approximate", iterations=80, key=key, **settings
        )
        held_out = draw((seed, 0, 2), BATCH, truth)
        streamed.append(LEARNER.mean_error(state, held_out))
        fitted = LEARNER.init(key, dictionary=fit.dictionary)
        in_memory.append(LEARNER.mean_error(fitted, held_out))
    assert np.mean(recovered) >= 0.9
    assert np.mean(streamed) < 1.01 * np.mean(in_memory)


@pytest.mark.parametrize("method", ["online", "approximate"])
def test_resumed_fit_is_bit_identical_to_an_uninterrupted_one(method, tmp_path):
    learner, batches = (
        DictionaryLearner(**SETTINGS, method=method),
        SIGNALS[: 8 * BATCH].reshape(8, BATCH, D),
    )
    whole = learner.fit(batches, KEY)
    half = learner.fit(batches[:4], KEY)
    with ocp.StandardCheckpointer() as store:
        store.save(tmp_path / "state", half)
        store.wait_until_finished()
        like = jax.eval_shape(learner.init, KEY, batches[0])
        read = store.restore(tmp_path / "state", like)
    rest = SIGNALS[int(read.step) * BATCH : 8 * BATCH]
    same(learner.fit(rest, jax.random.key(1), state=read), whole)
    assert whole.step == 8
    held_out = SIGNALS[-BATCH:]
    start = learner.init(KEY, batches[0])
    assert learner.mean_error(whole, held_out) < 0.7 * learner.mean_error(start, held_out)


def test_arrays_of_any_size_are_cut_and_joined_to_batches_in_their_order():
    whole = LEARNER.fit(SIGNALS, KEY)
    ragged = np.split(SIGNALS.reshape(-1, D), [3, 3, 200, 203])
    same(LEARNER.fit(iter(ragged), KEY), whole)
    rows = SIGNALS.reshape(2, -1, D)
    same(LEARNER.fit(rows, KEY), whole)
    assert whole.step == 9


def test_a_signal_that_is_not_finite_takes_no_part():
    """A zero signal adds nothing to any sum, but to the mean error."""
    states = []
    for value in (np.inf, np.nan, 0):
        signals = SIGNALS[:BATCH].copy()
        signals[-10:, 1] = value
        signals[-10:, 0] = 0
        signals[-10:, 2:] = 0
        states.append(LEARNER.update(LEARNER.init(KEY, dictionary=TRUTH), signals))
    same(states[0], states[1])
    for name in ("dictionary", "statistics", "usage"):
        same(getattr(states[0], name), getattr(states[2], name))
    np.testing.assert_allclose(states[0].error, states[2].error * BATCH / (BATCH - 10), rtol=1e-5)


def test_replaced_atoms_start_without_statistics():
    atoms = np.float32(TRUTH)
    atoms[1] = atoms[0]
    state = LEARNER.init(KEY, dictionary=atoms)
    little = state.usage.at[2].set(0.01)
    state = state._replace(step=jnp.int32(3), usage=little)  # it looks in the fourth step
    state = LEARNER.update(state, draw(5, BATCH, atoms[[0, *range(3, M)]]))
    new = np.flatnonzero(np.abs(np.sum(atoms * state.dictionary, -1)) < 0.9)
    assert np.all(np.asarray(state.usage)[new] == 1)
    assert 2 in new and len({0, 1} & set(new)) == 1
    assert coherence(state.dictionary).max() <= LEARNER.max_coherence
    moments = np.asarray(state.statistics.code_moment)
    assert not moments[new].any() and not moments[:, new].any()
    assert not np.asarray(state.statistics.cross_moment)[new].any()
    state = LEARNER.fit(draw(6, 9 * BATCH, TRUTH), KEY, state=state)
    assert usage(omp(SIGNALS[:BATCH], state.dictionary, sparsity=K), M).min() > 0


def test_a_fit_starts_from_the_dictionary_given():
    state = LEARNER.init(KEY, dictionary=3 * TRUTH)
    np.testing.assert_allclose(state.dictionary, TRUTH, rtol=1e-5)
    assert state.step == 0
    state = LEARNER.update(state, SIGNALS[:BATCH])
    assert state.error < 3 * D * NOISE**2
    np.testing.assert_allclose(np.linalg.norm(state.dictionary, axis=-1), 1, rtol=1e-5)


def test_a_power_of_two_of_the_scale_changes_nothing():
    plain = LEARNER.fit(SIGNALS, KEY)
    for scale in np.float32([2.0**-80, 2.0**80]):
        found = LEARNER.fit(scale * SIGNALS, KEY)
        np.testing.assert_array_equal(found.dictionary, plain.dictionary)


def test_a_callback_gets_each_steps_numbers_and_can_stop():
    seen = []

    def look(state, numbers):
        assert numbers["step"] == int(state.step)
        seen.append(numbers)
        return len(seen) == 4

    held_out = SIGNALS[-BATCH:]
    state = LEARNER.fit(SIGNALS, KEY, callback=look, held_out=held_out, evaluate_every=2)
    assert state.step == 4 and [x["step"] for x in seen] == [1, 2, 3, 4]
    assert ["held_out_error" in x for x in seen] == [False, True, False, True]
    assert seen[-1]["held_out_error"] == float(LEARNER.mean_error(state, held_out))
    assert float(state.best_error) == min(x["held_out_error"] for x in seen[1::2])
    again = LEARNER.fit(SIGNALS[: 4 * BATCH], KEY)
    np.testing.assert_array_equal(again.dictionary, state.dictionary)


def test_fit_stops_when_the_held_out_error_stops_falling():
    errors = []
    options = {
        "held_out": SIGNALS[-BATCH:],
        "evaluate_every": 1,
        "callback": lambda _, numbers: errors.append(numbers["held_out_error"]),
    }
    batches = [SIGNALS[: 8 * BATCH]] * 6
    LEARNER.fit(batches, KEY, **options)
    best = np.minimum.accumulate(errors)
    stop = 2 + np.argmax(np.array(errors[1:]) > 0.95 * best[:-1])
    assert 2 <= stop < 40
    assert LEARNER.fit(batches, KEY, tolerance=0.05, **options).step == stop


def test_a_tolerance_means_the_same_in_learning_and_in_evaluation():
    """Both are of signals over the scale of the first batch, whatever that of the others."""
    learner = DictionaryLearner(**SETTINGS, coder=functools.partial(omp, tolerance=0.03))
    state = LEARNER.init(KEY, dictionary=TRUTH)._replace(scale=jnp.float32(4))
    held_out = SIGNALS[-BATCH:]
    code = omp(held_out, state.dictionary, sparsity=K, tolerance=0.03 * 4**2)
    error = np.sum((held_out - decode(code, state.dictionary)) ** 2, -1)
    np.testing.assert_allclose(learner.mean_error(state, held_out), np.mean(error), rtol=1e-4)


def test_signals_of_which_none_is_finite_have_no_error():
    hidden = np.full_like(SIGNALS[:BATCH], np.nan)
    state = LEARNER.update(LEARNER.init(KEY, dictionary=TRUTH), hidden)
    assert np.isnan(state.error) and np.isnan(LEARNER.mean_error(state, hidden))
    np.testing.assert_allclose(state.dictionary, TRUTH, rtol=1e-5)


@pytest.mark.parametrize("fault", ["iterator", "width", "callback", "interrupt"])
def test_what_was_learned_outlives_an_error(fault):
    def batches():
        yield SIGNALS[: 4 * BATCH]
        if fault == "iterator":
            raise OSError("the disk is gone")
        yield SIGNALS[:BATCH, 1:]

    def look(state, numbers):
        if fault in ("callback", "interrupt") and numbers["step"] == 3:
            raise KeyboardInterrupt if fault == "interrupt" else ZeroDivisionError

    with pytest.raises(BaseException) as caught:
        LEARNER.fit(batches(), KEY, callback=look)
    kinds = {
        "iterator": OSError, "width": ValueError, "callback": ZeroDivisionError,
        "interrupt": KeyboardInterrupt,
    }  # fmt: skip
    assert caught.type is kinds[fault] and "learner_state" in caught.value.__notes__[0]
    state = caught.value.learner_state
    done = int(state.step)
    assert done == (3 if fault in ("callback", "interrupt") else 4)
    rest = SIGNALS[done * BATCH : 8 * BATCH]
    whole = LEARNER.fit(SIGNALS[: 8 * BATCH], KEY)
    same(LEARNER.fit(rest, KEY, state=state), whole)


def test_held_out_signals_are_checked_before_the_first_step():
    def batches():
        yield SIGNALS[:BATCH]
        raise AssertionError("a second batch was read")

    for held_out, match in (
        (SIGNALS[:, 1:], "same width"), (SIGNALS[:0], "must not be empty"),
        (np.ones((3, D), int), "floating"), (np.full((3, D), np.nan, "f"), "no signal that is fin"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            LEARNER.fit(batches(), KEY, held_out=held_out)


def test_another_held_out_set_starts_with_no_best_error():
    easy, hard = 0.1 * SIGNALS[-BATCH:], SIGNALS[-BATCH:]
    options = {"evaluate_every": 1, "tolerance": 1e-6}
    half = LEARNER.fit(SIGNALS[: 2 * BATCH], KEY, held_out=easy, **options)
    assert half.step == 2
    kept = jax.device_get(half)
    # The same set goes on, in another shape too: nothing can be so much better.
    rest = SIGNALS[2 * BATCH : 6 * BATCH]
    greedy = {"held_out": easy.reshape(5, -1, D), "evaluate_every": 1, "tolerance": 0.9}
    assert LEARNER.fit(rest, KEY, state=half, **greedy).step == 3
    found = LEARNER.fit(rest, KEY, state=kept, held_out=hard, **options)
    assert found.step > 3 and found.best_error > 10 * kept.best_error


def test_a_state_of_another_learner_raises_with_the_cause():
    state = LEARNER.init(KEY, dictionary=TRUTH)
    fewer = DictionaryLearner(**SETTINGS | {"num_atoms": 40})
    with pytest.raises(ValueError, match="state has 50 atoms, the learner 40; use the learner"):
        fewer.update(state, SIGNALS[:BATCH])
    other = DictionaryLearner(**SETTINGS, method="residual")
    with pytest.raises(
        ValueError, match=r"shapes \[\(50, 50\), \(50, 20\)\], .* 'residual' are \[\]"
    ):
        other.fit(SIGNALS, KEY, state=state)


def test_an_array_of_jax_is_copied_to_the_host_once_and_not_sliced():
    whole = jnp.asarray(SIGNALS[:BATCH])
    assert next(in_batches([whole], BATCH)) is whole
    rest = [whole, jnp.asarray(SIGNALS[BATCH:])]
    batches = list(in_batches(rest, BATCH))
    assert batches[0] is whole and {type(x) for x in batches[1:]} == {np.ndarray}
    np.testing.assert_array_equal(np.concatenate(batches)[: len(SIGNALS)], SIGNALS)


def test_progress_is_logged_where_there_is_no_terminal(caplog, capsys):
    with caplog.at_level(logging.INFO, "laser_jax"):
        LEARNER.fit(SIGNALS, KEY, progress=True)
    assert "step 9  error 0." in caplog.text and "signals/s" in caplog.text
    assert "\r" not in capsys.readouterr().err


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_sharded_signals_give_the_state_of_one_device(axis_type):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(axis_type,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    batches = SIGNALS[: 4 * BATCH].reshape(4, BATCH, D)
    expected = LEARNER.fit(batches, KEY, state=LEARNER.init(KEY, dictionary=TRUTH))
    state = LEARNER.init(KEY, dictionary=TRUTH)
    found = LEARNER.fit((jax.device_put(x, rows) for x in batches), KEY, state=state)
    assert found.dictionary.sharding == NamedSharding(mesh, PartitionSpec())
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "mod"}, "'mod'; choose from approximate, exact, online, parallel, residual"),
        ({"sparsity": 51}, r"\[1, 50\].*got 51"),
        ({"num_atoms": 0}, "num_atoms must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"decay": 1}, r"decay must be in \[0, 1\), got 1.0"),
        ({"learning_rate": 0}, r"learning_rate must be in \(0, 1\], got 0.0"),
        *(({"max_coherence": x}, r"max_coherence must be in \(0, 1\]") for x in (np.nan, -1, 100)),
        *(({"min_usage": x}, r"min_usage must be in \[0, 1\)") for x in (np.nan, -1, 100)),
    ],
)
def test_settings_of_a_learner_out_of_range_raise(change, message):
    with pytest.raises(ValueError, match=message):
        DictionaryLearner(**SETTINGS | change)


def test_invalid_signals_and_arguments_of_a_fit_raise(refuses):
    refuses(LEARNER.fit, [], KEY)
    refuses(LEARNER.fit, [SIGNALS, SIGNALS[:, 1:]], KEY)
    refuses(LEARNER.fit, [np.arange(D)], KEY)
    refuses(LEARNER.fit, SIGNALS, KEY, tolerance=0.1)
    for tolerance in (-1, np.nan, 1):
        refuses(LEARNER.fit, SIGNALS, KEY, held_out=SIGNALS, tolerance=tolerance)
    for steps in (0, 1.5):
        refuses(LEARNER.fit, SIGNALS, KEY, evaluate_every=steps)
    refuses(LEARNER.init, KEY)
    refuses(LEARNER.init, KEY, dictionary=TRUTH[1:])
    refuses(LEARNER.update, LEARNER.init(KEY, dictionary=TRUTH), jnp.ones((3, D + 1)))
