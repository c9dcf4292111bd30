"""A workdir holds one run: which keys may change, and the history of changes."""

import json

import pytest

from configs import default
from laser_jax.training.settings import SETTINGS
from laser_jax.training.workdir import (
    archive_unstarted_run,
    check_same_run,
    flat_config,
    planned_lengths,
    read_config,
    write_config,
)
from tests.training.test_settings import with_values

MAY_CHANGE = {
    "num_train_steps": 4000, "log_every_steps": 7, "eval_every_steps": 7,
    "checkpoint_every_steps": 7, "keep_checkpoints": 7, "not_finite": "skip",
    "max_skipped_steps": 7, "data.data_dir": "/data", "data.num_threads": 7,
    "data.num_workers": 7,
    "profile_step": 7, "model.remat": True, "prior.remat": True, "optimizer.accumulate_steps": 7,
    "eval.batch_size": 32, "eval.coefficient_bits": 8, "eval.checkpoint": "best",
    "eval.perceptual": False, "eval.split": "train", "eval.table_images": 0, "patience": 7,
    "autoencoder": "/runs/vq",
    "weights.lpips": "/lpips", "weights.inception": "/inception",
}  # fmt: skip
OTHER = {int: 1, float: 0.5, bool: False, tuple: (8, 8), str: "other", type(None): "other"}


@pytest.fixture
def workdir(tmp_path):
    """The workdir of a run of the default config with one completed step."""
    write_config(tmp_path, default.get_config())
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    return tmp_path


# Without data.split_rule: a resumed run keeps its own.
@pytest.mark.parametrize("key", sorted(SETTINGS.keys() - MAY_CHANGE.keys() - {"data.split_rule"}))
def test_changed_key_raises_an_error_with_its_values_and_the_remedy(key, workdir):
    own = {"adversarial.weight": 1.0} if key.startswith("adversarial.") else {}
    write_config(workdir, with_values(default.get_config(), own))
    stored = (workdir / "config.json").read_text()
    old = flat_config(read_config(workdir))[key]
    new = OTHER[type(old)] if old != OTHER[type(old)] else old + 1
    with pytest.raises(ValueError) as caught:
        check_same_run(workdir, with_values(default.get_config(), own | {key: new}))
    for part in (f"{key}: {old} stored, {new} given", "--workdir", str(workdir)):
        assert part in str(caught.value)
    assert (workdir / "config.json").read_text() == stored


def test_permitted_changes_are_logged_and_stored_with_their_step(workdir, caplog):
    caplog.set_level("INFO", "laser_jax")
    config = with_values(default.get_config(), MAY_CHANGE)
    check_same_run(workdir, config)
    write_config(workdir, config, step=20)
    assert "num_train_steps: 3000 before, 4000 now" in caplog.text
    assert flat_config(read_config(workdir)) == flat_config(config)
    (entry,) = json.loads((workdir / "config_history.json").read_text())
    assert entry["step"] == 20 and entry["changes"].keys() == MAY_CHANGE.keys()
    assert entry["changes"]["num_train_steps"] == [3000, 4000]
    assert planned_lengths(workdir) == ((0, 3000), (20, 4000))
    write_config(workdir, config, step=30)  # no difference, no new entry
    assert len(json.loads((workdir / "config_history.json").read_text())) == 1


def test_run_that_began_with_init_from_resumes_with_and_without_it(workdir):
    config = with_values(default.get_config(), {"init_from": "/run"})
    write_config(workdir, config)
    check_same_run(workdir, config)
    without = default.get_config()
    check_same_run(workdir, without)
    write_config(workdir, without, step=20)
    check_same_run(workdir, config)  # the first command again
    with pytest.raises(ValueError, match="init_from: /run stored, /other given"):
        check_same_run(workdir, with_values(default.get_config(), {"init_from": "/other"}))


def test_folder_data_set_may_move_but_the_data_set_may_not_change(workdir):
    config = with_values(default.get_config(), {"data.name": "folder:/before"})
    with pytest.raises(ValueError, match="data.name: photo_patches stored, folder:/before given"):
        check_same_run(workdir, config)
    write_config(workdir, config)
    check_same_run(workdir, with_values(default.get_config(), {"data.name": "folder:/after"}))


def test_config_without_a_version_keeps_its_adversarial_start(workdir):
    stored = json.loads((workdir / "config.json").read_text())
    assert stored.pop("version") == 2
    stored["adversarial"]["start_step"] = 500  # then: the last step without the term
    (workdir / "config.json").write_text(json.dumps(stored))
    assert read_config(workdir).adversarial.start_step == 501
    check_same_run(workdir, default.get_config())
    write_config(workdir, read_config(workdir))
    assert read_config(workdir).adversarial.start_step == 501


@pytest.mark.parametrize(
    "damage, missing",
    [
        (lambda stored: stored.pop("seed"), "it lacks seed."),
        (lambda stored: stored["model"].clear(), "it lacks model.* and more."),
        (lambda stored: stored.update(adversarial=3), "it must have the groups"),
        (lambda stored: stored.update(version="a"), "has version a"),
    ],
)
def test_config_that_lacks_keys_raises_and_is_named(damage, missing, workdir):
    stored = json.loads((workdir / "config.json").read_text())
    damage(stored)
    (workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=f"config.json .*{missing}"):
        read_config(workdir)


def test_config_of_a_newer_version_raises(workdir):
    stored = json.loads((workdir / "config.json").read_text()) | {"version": 99}
    (workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="has version 99.* up to"):
        read_config(workdir)


@pytest.mark.parametrize("checkpoints", [[], ["0"]], ids=["no checkpoint", "step 0"])
@pytest.mark.parametrize(
    "key, value", [("seed", 3), ("best_metric", "loss"), ("data.batch_size", 8)]
)
def test_run_without_a_completed_step_is_archived_for_a_corrected_config(
    checkpoints, key, value, tmp_path
):
    wrong = with_values(default.get_config(), {key: value, "optimizer.ema_decay": 1.0})
    write_config(tmp_path, wrong)
    for step in checkpoints:
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("a user's file")
    config = default.get_config()
    check_same_run(tmp_path, config)
    archive_unstarted_run(tmp_path, config)
    write_config(tmp_path, config)
    assert flat_config(read_config(tmp_path)) == flat_config(config)
    assert flat_config(read_config(tmp_path / "previous" / "1")) == flat_config(wrong)
    assert (tmp_path / "previous" / "1" / "checkpoints").exists() == bool(checkpoints)
    assert not (tmp_path / "checkpoints").exists() and (tmp_path / "notes.txt").exists()
    assert not (tmp_path / "config_history.json").exists()
    archive_unstarted_run(tmp_path, config)  # the same config: no file is moved
    assert len(list((tmp_path / "previous").iterdir())) == 1


def test_run_with_deleted_checkpoints_restarts_without_its_history(workdir):
    config = with_values(default.get_config(), {"num_train_steps": 4000})
    write_config(workdir, config, step=20)
    (workdir / "checkpoints" / "1").rmdir()
    for name in ("metrics.json", "evaluation-best.json", "events.out.tfevents.1.a"):
        (workdir / name).write_text("{}")
    archive_unstarted_run(workdir, config)
    write_config(workdir, config)
    assert planned_lengths(workdir) == ((0, 4000),)
    assert {path.name for path in workdir.iterdir()} == {"config.json", "previous"}
    assert len(list((workdir / "previous" / "1").iterdir())) == 6


def test_config_of_another_program_is_not_moved(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for check in (check_same_run, archive_unstarted_run):
        with pytest.raises(ValueError, match="is not the config of a run"):
            check(tmp_path, default.get_config())
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_checkpoints_without_a_config_raise(workdir):
    (workdir / "config.json").unlink()
    with pytest.raises(ValueError, match="holds checkpoints but no config.json"):
        check_same_run(workdir, default.get_config())


def test_old_run_keeps_its_split_rule_and_logs_it(workdir, caplog):
    caplog.set_level("INFO", "laser_jax")
    old = with_values(default.get_config(), {"data.name": "folder:/photos", "data.split_rule": 1})
    write_config(workdir, old)
    caplog.clear()
    new = with_values(default.get_config(), {"data.name": "folder:/photos"})
    check_same_run(workdir, new)
    assert new.data.split_rule == 1
    assert "data.split_rule stays 1, the rule of this run; 3 is ignored" in caplog.text
