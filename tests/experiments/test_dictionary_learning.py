import csv
import itertools
import json

import numpy as np
import pytest

from experiments import dictionary_learners as learners
from experiments import dictionary_learning as study
from experiments import learning_claims
from experiments.results import Results
from laser_jax.data import open_split
from laser_jax.sharding import data_mesh, put_batch
from laser_jax.training.loop import batches

SIZE = study.Size(
    num_embeddings=48, sparsity_level=3, batch=256, held_out=400, steps=24, sweep_steps=10,
    seeds=2, weights=(1.0, 10.0), iterations=(1, 5), memories=(0.0, 0.9),
    autoencoders=(study.GRADIENT, study.APPROXIMATE), run_steps=2, num_hiddens=8, test_every=200,
)  # fmt: skip


def curves(quality, seconds):
    y, x = np.array([quality], float), np.array([seconds], float)
    return learners.Curves(np.array([1, 2, 4]), x, y, y, y, y)


def test_curves_are_interpolated_between_evaluations():
    found = curves([8.0, 4.0, 2.0], [1.0, 4.0, 16.0])
    np.testing.assert_allclose(study.at_seconds(found, 2.0), [6.0])
    assert np.isnan(study.at_seconds(found, 0.5)) and study.at_seconds(found, 99.0) == [2.0]
    np.testing.assert_allclose(study.reached(found, [3.0], axis="seconds"), [8.0])
    np.testing.assert_allclose(study.reached(found, [6.0], axis="step"), [2**0.5])
    assert np.isnan(study.reached(found, [1.0], axis="step"))
    np.testing.assert_allclose(found.milliseconds, [4000])


def test_verdicts_follow_the_numbers():
    slow, fast = curves([8.0, 6.0, 4.0], [1.0, 2.0, 3.0]), curves([4.0, 3.0, 2.0], [2.0, 4.0, 8.0])
    group = dict.fromkeys((study.EXACT, study.APPROXIMATE, study.PARALLEL), fast)
    lines = list(learning_claims.ksvd_claim({study.GRADIENT: slow, **group}))
    assert "per step it holds, per second it holds" in lines[1]
    lines = list(learning_claims.ksvd_claim({study.GRADIENT: fast, **dict.fromkeys(group, slow)}))
    assert "is still at 400.00%" in lines[1] and "per second it does not hold" in lines[1]
    by_sweeps = {("K-SVD", 1): slow, ("K-SVD", 5): curves([8.0, 6.0, 3.0], [4.0, 8.0, 16.0])}
    _, line = learning_claims.iteration_claim(by_sweeps)
    assert "per step it holds" in line and "per second it does not hold" in line


def test_each_learner_gets_every_batch_and_is_timed_separately():
    class Learner:
        def __init__(self):
            self.seen = []

        def advance(self, batch):
            self.seen.append(batch)

        def look(self):
            return [len(self.seen), 0.0, 0.0, 0.0]

    both = [Learner(), Learner()]
    found = learners.learn_in_turn(both, range(100), [1, 3])
    assert [learner.seen for learner in both] == [[0, 1, 2], [0, 1, 2]]
    assert found["quality"].tolist() == [[1, 3], [1, 3]]
    assert np.all(np.diff(found["seconds"]) > 0)


@pytest.mark.slow
def test_patches_are_learned_from_one_start():
    variants = [
        ("slow", {"dictionary_update": "gradient", "dictionary_weight": 10.0}),
        ("fast", {"dictionary_update": "online"}),
    ]
    found = learners.learn_patches(SIZE, "photographs", variants, 24, 0)
    slow, fast = found["quality"]
    # The first step of a warm-up goes nowhere: that is the start.
    assert np.all(fast <= slow[0]) and slow[-1] < 0.97 * slow[0] and fast[-1] < 0.97 * fast[0]
    assert found["step"][0] == 1 and found["step"][-1] == 24
    assert np.all((found["used"] > 0.5) & (found["used"] <= 1))
    assert np.all(found["mean_coherence"] < found["max_coherence"])
    assert np.all(found["max_coherence"] < 1) and np.all(np.diff(found["seconds"]) > 0)


@pytest.mark.slow
def test_an_autoencoder_learns_as_in_training(tiny_config):
    train, test = (open_split(tiny_config.data, split) for split in ("train", "test"))
    mesh, test = data_mesh(), [test[i] for i in range(0, len(test), 150)]
    learner = learners.InAutoencoder(tiny_config, train, test, mesh)
    before, atoms = learner.look(), np.array(learner._state.dictionary["atoms"])
    for batch in itertools.islice(batches(tiny_config, train, 0), 15):
        learner.advance(put_batch(batch, mesh))
    assert int(learner._state.step) == 15 and learner.look()[0] > before[0] + 1
    assert np.any(np.array(learner._state.dictionary["atoms"]) != atoms)


def made_up(pairs, steps):
    """Curves by rule: gradient's error falls with its weight, sweeps cost time and gain nothing."""
    looks, found = np.array([1, steps // 10 + 1, steps]), {"quality": [], "seconds": []}
    for _, settings in pairs:
        weight, sweeps = settings.get("dictionary_weight", 8), settings.get("ksvd_iterations", 1)
        found["quality"].append(0.2 - 0.01 * weight * looks / steps)
        found["seconds"].append(0.1 * sweeps * looks)
    found |= {field: found["quality"] for field in learners.Curves._fields[3:]}
    return {"step": looks, **found}


def test_verdicts_of_the_report_agree_with_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "learn_patches", lambda size, source, *x: made_up(*x[:2]))
    monkeypatch.setattr(study, "learn_latents", lambda size, pairs, seed: made_up(pairs, 20))
    out = Results(tmp_path, "t")
    study.run(out, SIZE)
    out.write("")
    report = (tmp_path / "README.md").read_text()
    assert "At 10 it is 18.75 ± 0.00% after 3 (faster holds), 10.00 ± 0.00% after 24" in report
    assert report.count("per step it does not hold") == 2  # equal is not better
    assert "after 2.40 s, what the cheapest takes for all its steps, is least with online" in report
    with open(tmp_path / "curves.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["comparison"] for row in rows} == {*study.variants(SIZE), "autoencoders"}
    # Three looks of two seeds of 5 methods, 2 weights, 2 x 2 sweeps and memories, 2 networks.
    assert len(rows) == 3 * 2 * (5 + 2 + 4 + 4 + 2)
    blocks = json.loads((tmp_path / "blocks.json").read_text())["blocks"]
    figures = [block["name"] for block in blocks if block["kind"] == "figure"]
    assert figures == ["methods.png", "parameters.png", "autoencoders.png"]
    assert all((tmp_path / name).stat().st_size > 10_000 for name in figures)
