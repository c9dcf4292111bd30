import types
import weakref

import numpy as np

from laser_jax.evaluation import split
from laser_jax.sharding import data_mesh


def test_batches_of_a_split_do_not_pile_up_in_memory(monkeypatch, tiny_config):
    """Evaluation holds two of them at most, however many there are."""
    alive, most = weakref.WeakSet(), []

    class Batch(np.ndarray):  # plain arrays cannot be in a set
        __hash__ = object.__hash__

    def eval_batches(source, **_):
        for _ in range(len(source)):
            images = np.zeros((8, 2, 2, 3), np.uint8).view(Batch)
            alive.add(images)
            most.append(len(alive))
            yield images, np.ones(8, bool)

    def eval_step(variables, images, mask):
        one = np.float32(1)
        return (
            {"images": np.float32(8), "squared_error": one, "active_atoms": one},
            {"uses": np.ones(4), "energy": np.ones(4)},
        )

    monkeypatch.setattr(split, "eval_batches", eval_batches)
    bottleneck = types.SimpleNamespace(num_embeddings=4, bits_per_signal=lambda bits: 2.0)
    metrics = split.evaluate_split(
        eval_step,
        types.SimpleNamespace(bottleneck=bottleneck, signal_pixels=16),
        {"dictionary": {"bottleneck": {"atoms": np.eye(4, dtype=np.float32)}}},
        range(30),
        mesh=data_mesh(),
        config=tiny_config,
    )
    assert metrics["images"] == 240
    assert len(most) == 30 and max(most) <= 2


def test_few_images_are_shown_once_each():
    source = np.arange(3 * 12, dtype=np.uint8).reshape(3, 2, 2, 3)
    np.testing.assert_array_equal(split.evenly_spaced_images(source, count=12), source)
    assert split.evenly_spaced(range(100), 4).tolist() == [0, 33, 66, 99]
