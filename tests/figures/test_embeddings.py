import importlib.util

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from laser_jax.figures import embeddings


@pytest.fixture
def atoms():
    """Two groups far apart."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((24, 5)) + np.repeat([[0.0], [30.0]], 12, 0)


def test_projections_keep_groups_apart_and_are_the_same_again(atoms):
    found = embeddings.project(atoms)
    assert {"PCA", "t-SNE"} <= set(found)
    assert ("UMAP" in found) == (importlib.util.find_spec("umap") is not None)
    for places in found.values():
        gap = np.linalg.norm(places[:12].mean(0) - places[12:].mean(0))
        assert gap > 2 * places[:12].std(0).max()
    again = embeddings.project(atoms)
    np.testing.assert_array_equal(again["t-SNE"], found["t-SNE"])
    with pytest.raises(ValueError, match="at least 4 atoms, got 3"):
        embeddings.project(atoms[:3])


def test_explained_variance_is_that_of_two_components(atoms):
    from sklearn.decomposition import PCA

    share = PCA(2).fit(atoms).explained_variance_ratio_.sum()
    assert embeddings.explained_variance(atoms) == pytest.approx(share)
    title = embeddings.embedding_figure(atoms, [1] * 24).axes[0].get_title()
    assert title == f"PCA, {share:.0%} of the variance"
    assert embeddings.explained_variance(np.ones((4, 3))) == 1


def test_distances_are_summarised_by_mean_and_standard_deviation(atoms):
    pairs = pdist(atoms)
    title = embeddings.distance_figure(atoms, signless=False).axes[1].get_title()
    assert title == f"mean {pairs.mean():.3g}, standard deviation {pairs.std():.3g}"


def test_distances_are_scipys_and_cosines_ignore_signs(atoms):
    found, name = embeddings.distances(atoms, signless=False)
    np.testing.assert_allclose(found, squareform(pdist(atoms)), atol=1e-5)
    assert name == "distance"
    atoms[1] = -2 * atoms[0]
    atoms[2] = 0
    cosines, _ = embeddings.distances(atoms, signless=True)
    assert cosines[0, 1] == pytest.approx(1) and np.all(cosines[2] == 0)


def test_similar_atoms_are_placed_side_by_side(atoms):
    shuffled = np.random.default_rng(1).permutation(24)
    values, _ = embeddings.distances(atoms[shuffled], signless=False)
    groups = shuffled[embeddings._by_likeness(values)] < 12
    assert np.sum(np.diff(groups.astype(int)) != 0) == 1


def test_unused_atoms_are_open_circles(atoms):
    figure = embeddings.embedding_figure(atoms, [0] * 4 + [1] * 20)
    unused, used = figure.axes[0].collections
    assert len(unused.get_offsets()) == 4 and len(used.get_offsets()) == 20
    np.testing.assert_allclose(used.get_array(), 5.0)  # percent
    matrix = embeddings.distance_figure(atoms, signless=True).axes[0].images[0].get_array()
    assert matrix.shape == (24, 24)
