"""Figures of entries and atoms: projections to the plane, and pairwise distances."""

import importlib.util

import numpy as np

from laser_jax.figures import style

PCA, TSNE, UMAP = "PCA", "t-SNE", "UMAP"


def project(atoms, *, seed=0):
    """Returns method -> `(m, 2)`: PCA, t-SNE, and UMAP if umap-learn is installed.

    Args:
      atoms: `(m, d)`, at least 4 of them.
      seed: of the random numbers.

    Raises:
      ValueError: if there are fewer than 4 atoms.
    """
    from sklearn.decomposition import PCA as Components
    from sklearn.manifold import TSNE as Neighbours
    from threadpoolctl import threadpool_limits

    atoms = np.asarray(atoms, np.float32)
    if len(atoms) < 4:
        raise ValueError(f"a projection needs at least 4 atoms, got {len(atoms)}.")
    # Neighbours looked at: fewer than there are.
    near = min(30.0, (len(atoms) - 1) / 3)
    found = {PCA: Components(2, random_state=seed).fit_transform(atoms)}
    neighbours = Neighbours(2, perplexity=near, init="pca", random_state=seed, n_jobs=1)
    with threadpool_limits(1):  # on a busy machine threads that wait for each other took minutes
        found[TSNE] = neighbours.fit_transform(atoms)
    if importlib.util.find_spec("umap"):
        import umap

        neighbours = max(2, min(15, len(atoms) - 1))
        found[UMAP] = umap.UMAP(n_neighbors=neighbours, random_state=seed).fit_transform(atoms)
    return found


def explained_variance(atoms):
    """Returns the share of the atoms' variance that the first two principal components hold."""
    atoms = np.asarray(atoms, np.float64)
    squares = np.linalg.svd(atoms - atoms.mean(0), compute_uv=False) ** 2
    return float(squares[:2].sum() / squares.sum()) if squares.any() else 1.0


def embedding_figure(atoms, uses, *, title=""):
    """Returns a figure of the atoms in the plane, a panel a projection, coloured by their use.

    Args:
      atoms: `(m, d)`.
      uses: `(m,)`, how often each is used.
      title: a line above.
    """
    projections = project(atoms)
    figure = style.new_figure(8, 3.2 if len(projections) > 2 else 4)
    style.heading(figure, title)
    share = 100 * np.asarray(uses, float) / max(np.sum(uses), 1)
    unused = share == 0
    # A few atoms have most of the uses: on a linear scale all others look the same.
    look = {"cmap": "viridis", "norm": "linear" if unused.all() else "log"}
    size = 14 if len(share) < 100 else 7
    panels = figure.subplots(1, len(projections))
    for axes, (name, places) in zip(panels, projections.items(), strict=True):
        axes.scatter(*places[unused].T, s=size, facecolors="none", edgecolors="0.6", linewidths=0.7)
        shown = axes.scatter(*places[~unused].T, s=size, c=share[~unused], **look)
        if name == PCA:
            name = f"PCA, {explained_variance(atoms):.0%} of the variance"
        style.clean(axes, title=name, grid=False)
        axes.set(xticks=[], yticks=[])
    bar = figure.colorbar(shown, ax=panels, pad=0.01)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("% of uses (open: none)", fontsize=8)
    return figure


def distances(atoms, *, signless):
    """Returns a distance for each pair of atoms, `(m, m)`, and its name.

    Args:
      atoms: `(m, d)`.
      signless: whether an atom and its negative are the same, as for dictionaries: |cosine|
        then, larger where they are alike; else Euclidean distances.
    """
    atoms = np.asarray(atoms, np.float64)
    if signless:
        norms = np.linalg.norm(atoms, axis=1, keepdims=True)
        unit = atoms / np.where(norms > 0, norms, 1)
        return np.abs(unit @ unit.T), "|cosine|"
    squares = np.sum(atoms**2, 1)
    squared = squares[:, None] + squares[None, :] - 2 * atoms @ atoms.T
    return np.sqrt(np.maximum(squared, 0)), "distance"


def distance_figure(atoms, *, signless, title=""):
    """Returns a figure of all pairs: a matrix, similar atoms side by side, and a histogram.

    Args and meaning as for `distances`.
    """
    values, label = distances(atoms, signless=signless)
    order = _by_likeness(1 - values if signless else values)
    figure = style.new_figure(8, 3.6)
    style.heading(figure, title)
    left, right = figure.subplots(1, 2)
    shown = style.picture(left, values[np.ix_(order, order)], cmap="magma")
    left.set_xlabel("atoms, like ones side by side", fontsize=8)
    bar = figure.colorbar(shown, ax=left, pad=0.01)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=8)
    pairs = values[np.triu_indices(len(values), 1)]
    right.hist(pairs, bins=int(np.clip(len(pairs) ** 0.5, 5, 60)), color=style.BLUE)
    summary = f"mean {pairs.mean():.3g}, standard deviation {pairs.std():.3g}"
    style.clean(right, title=summary, xlabel=f"{label} of two atoms", ylabel="pairs")
    return figure


def _by_likeness(unlike):
    """The order of the leaves of average-linkage clustering."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    symmetric = (unlike + unlike.T) / 2
    np.fill_diagonal(symmetric, 0)
    return leaves_list(linkage(squareform(np.maximum(symmetric, 0), checks=False), "average"))
