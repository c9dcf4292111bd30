import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from laser_jax.sparse import (
    EmaStatistics,
    SparseCode,
    decode,
    ema_update,
    kmeans_init,
    nearest_atom,
    residual_nearest_atoms,
)
from laser_jax.sparse.codebook import replace_codes, stage_kmeans, stage_targets

KEY = jax.random.key(0)


def random_problem(rng, dtype, n=200, d=8, m=30):
    signals, dictionary = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    return jnp.asarray(signals, dtype), jnp.asarray(dictionary, dtype)


def brute_force(signals, dictionary):
    signals, dictionary = np.asarray(signals, np.float64), np.asarray(dictionary, np.float64)
    return np.argmin(np.sum((signals[:, None] - dictionary[None]) ** 2, -1), -1)


@pytest.mark.parametrize(("block_size", "d"), [(None, 3), (7, 3), (None, 64)])
def test_nearest_atom_is_that_of_brute_force(rng, dtype, block_size, d):
    signals, dictionary = random_problem(rng, dtype, d=d)
    code = nearest_atom(signals, dictionary, block_size=block_size)
    assert code.indices.shape == (200, 1) and code.indices.dtype == jnp.int32
    assert code.coefficients.dtype == dtype
    np.testing.assert_array_equal(code.indices[:, 0], brute_force(signals, dictionary))
    np.testing.assert_array_equal(code.coefficients, 1)


@pytest.mark.parametrize("d", [3, 64])
def test_atoms_far_from_the_origin_are_told_apart(rng, d):
    signals, dictionary = (x + 1000 for x in random_problem(rng, np.float32, d=d))
    indices = nearest_atom(signals, dictionary).indices[:, 0]
    np.testing.assert_array_equal(indices, brute_force(signals, dictionary))


@pytest.mark.parametrize("d", [3, 16, 64])
@pytest.mark.parametrize("groups", [2, 40])
def test_atoms_in_groups_far_from_each_other_are_told_apart(rng, groups, d):
    m, n = 80, 2000
    for distance in (30, 1000, 3000, 30000):
        centers = distance * rng.choice([-1, 1], size=(groups, d)) * rng.uniform(1, 2, (groups, 1))
        dictionary = np.float32(np.repeat(centers, m // groups, 0) + rng.normal(size=(m, d)))
        picks = rng.integers(m, size=n)
        signals = np.float32(dictionary[picks] + 0.5 * rng.normal(size=(n, d)))
        indices = nearest_atom(signals, dictionary).indices[:, 0]
        # Float32 rounds true differences of these as well: ties at one in thousands.
        assert np.mean(indices == brute_force(signals, dictionary)) > 0.999


def test_stages_and_centroids_far_from_each_other_are_right(rng):
    dictionary = np.float32(rng.normal(size=(80, 3)) + 3000 * np.repeat([[1], [-1]], 40, 0))
    codebook = np.concatenate([dictionary, np.float32(0.1 * rng.normal(size=(80, 3)))])
    signals = np.float32(dictionary[rng.integers(80, size=2000)] + rng.normal(size=(2000, 3)) / 2)
    first = residual_nearest_atoms(signals, codebook, stages=2).indices[:, 0]
    assert np.mean(first == brute_force(signals, dictionary)) > 0.999
    centers = np.repeat(dictionary[::8], 200, 0)
    near = np.float32(centers + 0.01 * rng.normal(size=centers.shape))
    atoms = np.asarray(kmeans_init(near, 10, key=KEY))
    squares = np.sum((near[:, None] - atoms[None]) ** 2, -1).min(-1)
    assert np.sum(squares < 0.01) >= 1600  # most groups have a centroid of their own


@pytest.mark.parametrize("d", [3, 64])
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_the_nearest_atom_does_not_depend_on_the_scale(rng, d, scale):
    signals, dictionary = random_problem(rng, np.float32, d=d)
    expected = nearest_atom(signals, dictionary).indices
    found = nearest_atom(np.float32(scale) * signals, np.float32(scale) * dictionary).indices
    assert np.mean(found == expected) > 0.99
    # Far signals are nearest to the atom furthest in their direction, near ones to the shortest.
    far = nearest_atom(signals, np.float32(1e-30) * dictionary).indices[:, 0]
    np.testing.assert_array_equal(
        far, np.argmax(np.asarray(signals) @ np.asarray(dictionary).T, -1)
    )
    near = nearest_atom(np.float32(1e-30) * signals, dictionary).indices
    np.testing.assert_array_equal(near, np.argmin(np.sum(dictionary**2, -1)))


@pytest.mark.parametrize("d", [3, 64])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_atom_that_is_not_finite_is_nearest_to_no_signal(rng, d, value):
    signals, dictionary = (np.array(x) for x in random_problem(rng, np.float32, d=d))
    dictionary[5, 1] = value
    rest = np.delete(np.arange(30), 5)
    expected = rest[brute_force(signals, dictionary[rest])]
    np.testing.assert_array_equal(nearest_atom(signals, dictionary).indices[:, 0], expected)


def test_nearest_atom_takes_the_first_of_a_tie(dtype):
    dictionary = jnp.asarray([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], dtype)
    signals = jnp.asarray([[0.0, 0.0], [2.0, 0.0], [-0.5, 1.0]], dtype)
    np.testing.assert_array_equal(nearest_atom(signals, dictionary).indices[:, 0], [0, 0, 1])


def test_nearest_atom_of_bfloat16_signals_is_decided_in_float32(rng):
    signals, dictionary = random_problem(rng, np.float32)
    signals = signals.astype(jnp.bfloat16)
    code = nearest_atom(signals, dictionary)
    assert code.coefficients.dtype == jnp.float32
    np.testing.assert_array_equal(code.indices[:, 0], brute_force(signals, dictionary))
    stages = residual_nearest_atoms(signals, dictionary, stages=3)
    exact = residual_nearest_atoms(signals.astype(jnp.float32), dictionary, stages=3)
    np.testing.assert_array_equal(stages.indices, exact.indices)
    assert stages.coefficients.dtype == jnp.float32


def test_leading_axes_do_not_change_the_nearest_atom(rng):
    signals, dictionary = random_problem(rng, np.float32)
    whole = nearest_atom(signals, dictionary).indices
    code = nearest_atom(signals.reshape(4, 5, 10, 8), dictionary)
    assert code.indices.shape == (4, 5, 10, 1)
    np.testing.assert_array_equal(code.indices.reshape(200, 1), whole)
    assert nearest_atom(signals[:0], dictionary).indices.shape == (0, 1)
    assert nearest_atom(signals[0], dictionary).indices.shape == (1,)
    assert nearest_atom(signals, dictionary[:1]).indices.max() == 0


@pytest.mark.usefixtures("two_devices")
def test_nearest_atoms_of_sharded_signals_are_found_where_they_are(rng):
    signals, dictionary = random_problem(rng, np.float32)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(signals, NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(dictionary, NamedSharding(mesh, PartitionSpec()))
    run = jax.jit(lambda y, d: nearest_atom(y, d, block_size=50))
    compiled = run.lower(sharded, everywhere).compile()
    assert "all-" not in compiled.as_text() and "permute" not in compiled.as_text()
    np.testing.assert_array_equal(
        compiled(sharded, everywhere).indices, nearest_atom(signals, dictionary).indices
    )


def test_each_residual_stage_codes_what_is_left_with_its_own_rows(rng, dtype):
    signals, dictionary = random_problem(rng, dtype)
    code = residual_nearest_atoms(signals, dictionary, stages=3)
    assert code.indices.shape == (200, 3)
    residual = np.asarray(signals)
    for stage in range(3):
        rows = np.asarray(dictionary[10 * stage : 10 * stage + 10])
        nearest = brute_force(residual, rows)
        np.testing.assert_array_equal(code.indices[:, stage], nearest + 10 * stage)
        residual = residual - rows[nearest]
    np.testing.assert_allclose(signals - decode(code, dictionary), residual, atol=1e-5)


def test_stage_targets_are_what_the_stages_before_left(rng, dtype):
    signals, dictionary = random_problem(rng, dtype)
    code = residual_nearest_atoms(signals, dictionary, stages=3)
    targets = stage_targets(signals, dictionary, code)
    residual = signals
    for stage in range(3):
        np.testing.assert_allclose(targets[:, stage], residual, atol=1e-5)
        residual = residual - dictionary[code.indices[:, stage]]


def test_stages_that_do_not_divide_the_atoms_are_an_error(rng):
    signals, dictionary = random_problem(rng, np.float32)
    with pytest.raises(ValueError, match="divide the 30 atoms.*got 4"):
        residual_nearest_atoms(signals, dictionary, stages=4)


def test_kmeans_inertia_is_near_that_of_scikit_learn(patches):
    from sklearn.cluster import KMeans

    signals = patches[:2000]

    def inertia(atoms):
        products = signals @ np.asarray(atoms, np.float64).T
        distances = np.sum(atoms**2, -1)[None, :] - 2 * products
        return np.sum(signals**2) + np.sum(np.min(distances, -1))

    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    fit = jax.vmap(lambda key: kmeans_init(jnp.float32(signals), 20, key=key, iterations=30))
    ours = np.mean([inertia(np.asarray(atoms)) for atoms in fit(keys)])
    theirs = np.mean([KMeans(20, n_init=1, random_state=s).fit(signals).inertia_ for s in range(4)])
    assert ours <= 1.03 * theirs


def test_kmeans_finds_well_separated_clusters(rng, dtype):
    centers = 100 * np.eye(5, 8)
    signals = np.repeat(centers, 20, 0) + rng.normal(size=(100, 8))
    atoms = kmeans_init(jnp.asarray(signals.reshape(10, 10, 8), dtype), 5, key=KEY)
    assert atoms.dtype == dtype
    means = signals.reshape(5, 20, 8).mean(1)
    order = np.argsort(np.argmax(np.asarray(atoms)[:, :5], -1))
    np.testing.assert_allclose(np.asarray(atoms)[order], means, rtol=1e-4, atol=1e-3)


def test_kmeans_of_fewer_distinct_signals_than_atoms_is_finite():
    signals = jnp.ones((6, 3)).at[0].set(2)
    atoms = kmeans_init(signals, 10, key=KEY)
    assert np.all(np.isfinite(atoms))
    assert set(np.unique(np.asarray(atoms))) <= {1.0, 2.0}


def test_bad_kmeans_input_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"not be empty, got \(0, 3\)"):
        kmeans_init(jnp.ones((0, 3)), 2, key=KEY)
    with pytest.raises(ValueError, match="num_atoms must be at least 1, got 0"):
        kmeans_init(jnp.ones((2, 3)), 0, key=KEY)


def test_ema_update_is_its_formula(rng, dtype):
    signals, dictionary = random_problem(rng, dtype)
    code = nearest_atom(signals, dictionary)
    statistics = EmaStatistics(jnp.full(30, 2, dtype), 2 * dictionary)
    new_statistics, new = ema_update(statistics, signals, code, decay=0.9)
    chosen = np.eye(30)[np.asarray(code.indices)[:, 0]]
    counts = 0.9 * 2 + 0.1 * chosen.sum(0)
    sums = 0.9 * 2 * np.asarray(dictionary) + 0.1 * chosen.T @ np.asarray(signals)
    np.testing.assert_allclose(new_statistics.counts, counts, rtol=1e-5)
    np.testing.assert_allclose(new_statistics.sums, sums, rtol=1e-4, atol=1e-5)
    smoothed = (counts + 1e-5) / (counts.sum() + 30e-5) * counts.sum()
    np.testing.assert_allclose(new, sums / smoothed[:, None], rtol=1e-4, atol=1e-5)
    assert new.dtype == dtype


def test_ema_update_of_unused_atoms_is_finite():
    statistics = EmaStatistics(jnp.zeros(4), jnp.zeros((4, 2)))
    code = SparseCode(jnp.zeros((3, 1), jnp.int32), jnp.ones((3, 1)))
    _, new = ema_update(statistics, jnp.ones((3, 2)), code, decay=0.0)
    np.testing.assert_allclose(new[0], 1, rtol=1e-3)
    assert np.all(np.isfinite(new))


def test_ema_statistics_of_bfloat16_signals_stay_float32(rng):
    signals, dictionary = random_problem(rng, np.float32)
    signals = signals.astype(jnp.bfloat16)
    statistics = EmaStatistics(jnp.ones(30), dictionary)
    code = nearest_atom(signals, dictionary)
    new_statistics, new = ema_update(statistics, signals, code, decay=0.9)
    assert {x.dtype for x in (*new_statistics, new)} == {np.dtype("float32")}


def test_dead_codes_become_different_signals_with_large_errors(rng):
    signals, dictionary = random_problem(rng, np.float32)
    signals = signals.at[:100].set(dictionary[jnp.arange(100) % 20])  # these have no error
    code = nearest_atom(signals, dictionary)
    dead = jnp.arange(30) >= 20
    new = np.asarray(replace_codes(signals, dictionary, code, dead, key=KEY))
    np.testing.assert_array_equal(new[:20], dictionary[:20])
    picked = [np.nonzero(np.all(np.asarray(signals) == row[None], -1))[0] for row in new[20:]]
    assert all(len(p) == 1 and p[0] >= 100 for p in picked)
    assert len({int(p[0]) for p in picked}) == 10
    alive = jnp.zeros(30, bool)
    np.testing.assert_array_equal(
        replace_codes(signals, dictionary, code, alive, key=KEY), dictionary
    )
    few = replace_codes(signals[:3], dictionary, SparseCode(*(x[:3] for x in code)), dead, key=KEY)
    assert np.all(np.isfinite(few))


def test_each_stage_of_stage_kmeans_codes_what_the_earlier_ones_left():
    signals = jnp.asarray(np.random.default_rng(0).normal(size=(300, 4)), jnp.float32)
    codebooks = stage_kmeans(signals, 16, stages=2, key=KEY, iterations=3)
    rest = signals
    for stage, codebook in enumerate(jnp.split(codebooks, 2)):
        key = jax.random.fold_in(KEY, stage)
        np.testing.assert_array_equal(codebook, kmeans_init(rest, 8, key=key, iterations=3))
        rest = rest - decode(nearest_atom(rest, codebook), codebook)
    with pytest.raises(ValueError, match=r"stages must divide the 16 atoms \(num_atoms\), got 3"):
        stage_kmeans(signals, 16, stages=3, key=KEY)
