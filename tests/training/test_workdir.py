"""A workdir holds one run: what may change in its config, and what is kept of a change."""

import json

import pytest

from configs import default
from laser_jax.training.settings import SETTINGS
from laser_jax.training.workdir import (
    check_same_run,
    flat_config,
    make_room,
    planned_lengths,
    read_config,
    write_config,
)
from tests.training.test_settings import with_values

MAY_CHANGE = {
    "num_train_steps": 4000, "log_every_steps": 7, "eval_every_steps": 7,
    "checkpoint_every_steps": 7, "keep_checkpoints": 7, "not_finite": "skip",
    "max_skipped_steps": 7, "data.data_dir": "/data", "data.num_threads": 7,
    "eval.batch_size": 32, "eval.coefficient_bits": 8, "eval.checkpoint": "best",
    "eval.perceptual": False, "eval.split": "train",
    "weights.lpips": "/lpips", "weights.inception": "/inception",
}  # fmt: skip
OTHER = {int: 1, float: 0.5, bool: False, tuple: (8, 8), str: "other", type(None): "other"}


@pytest.fixture
def workdir(tmp_path):
    """Of a run of the default config that has made a step."""
    write_config(tmp_path, default.get_config())
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    return tmp_path


# data.split_rule is not asked for: a run keeps its own.
@pytest.mark.parametrize("key", sorted(SETTINGS.keys() - MAY_CHANGE.keys() - {"data.split_rule"}))
def test_a_changed_key_is_refused_and_named_with_the_remedy(key, workdir):
    stored = (workdir / "config.json").read_text()
    old = flat_config(default.get_config())[key]
    new = OTHER[type(old)] if old != OTHER[type(old)] else old + 1
    with pytest.raises(ValueError) as caught:
        check_same_run(workdir, with_values(default.get_config(), {key: new}))
    for part in (f"{key}: {old} there, {new} now", "--workdir", str(workdir)):
        assert part in str(caught.value)
    assert (workdir / "config.json").read_text() == stored


def test_keys_that_may_change_are_logged_and_kept_with_their_step(workdir, caplog):
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
    write_config(workdir, config, step=30)  # nothing differs: nothing is added
    assert len(json.loads((workdir / "config_history.json").read_text())) == 1


def test_a_folder_of_images_may_move_but_the_data_set_may_not_change(workdir):
    config = with_values(default.get_config(), {"data.name": "folder:/before"})
    with pytest.raises(ValueError, match="data.name: photo_patches there, folder:/before now"):
        check_same_run(workdir, config)
    write_config(workdir, config)
    check_same_run(workdir, with_values(default.get_config(), {"data.name": "folder:/after"}))


def test_a_config_without_a_version_keeps_its_adversarial_start(workdir):
    stored = json.loads((workdir / "config.json").read_text())
    assert stored.pop("version") == 1
    stored["adversarial"]["start_step"] = 500  # the last step without the term, then
    (workdir / "config.json").write_text(json.dumps(stored))
    assert read_config(workdir).adversarial.start_step == 501
    check_same_run(workdir, default.get_config())
    write_config(workdir, read_config(workdir))
    assert read_config(workdir).adversarial.start_step == 501


def test_a_config_of_a_later_version_is_refused(workdir):
    stored = json.loads((workdir / "config.json").read_text()) | {"version": 99}
    (workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="has version 99.* up to"):
        read_config(workdir)


@pytest.mark.parametrize("checkpoints", [[], ["0"]], ids=["no checkpoint", "step 0"])
@pytest.mark.parametrize(
    "key, value", [("seed", 3), ("best_metric", "loss"), ("data.batch_size", 8)]
)
def test_a_run_without_steps_makes_room_for_a_corrected_config(checkpoints, key, value, tmp_path):
    wrong = with_values(default.get_config(), {key: value, "optimizer.ema_decay": 1.0})
    write_config(tmp_path, wrong)
    for step in checkpoints:
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("of the user")
    config = default.get_config()
    check_same_run(tmp_path, config)
    make_room(tmp_path, config)
    write_config(tmp_path, config)
    assert flat_config(read_config(tmp_path)) == flat_config(config)
    assert flat_config(read_config(tmp_path / "previous" / "1")) == flat_config(wrong)
    assert (tmp_path / "previous" / "1" / "checkpoints").exists() == bool(checkpoints)
    assert not (tmp_path / "checkpoints").exists() and (tmp_path / "notes.txt").exists()
    assert not (tmp_path / "config_history.json").exists()
    make_room(tmp_path, config)  # the same config: nothing moves
    assert len(list((tmp_path / "previous").iterdir())) == 1


def test_a_run_whose_checkpoints_were_deleted_begins_without_its_history(workdir):
    config = with_values(default.get_config(), {"num_train_steps": 4000})
    write_config(workdir, config, step=20)
    (workdir / "checkpoints" / "1").rmdir()
    for name in ("metrics.json", "evaluation-best.json", "events.out.tfevents.1.a"):
        (workdir / name).write_text("{}")
    make_room(workdir, config)
    write_config(workdir, config)
    assert planned_lengths(workdir) == ((0, 4000),)
    assert {path.name for path in workdir.iterdir()} == {"config.json", "previous"}
    assert len(list((workdir / "previous" / "1").iterdir())) == 6


def test_a_config_of_another_program_stays_where_it_is(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for check in (check_same_run, make_room):
        with pytest.raises(ValueError, match="is not the config of a run"):
            check(tmp_path, default.get_config())
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_checkpoints_without_a_config_are_refused(workdir):
    (workdir / "config.json").unlink()
    with pytest.raises(ValueError, match="holds checkpoints, and no config.json"):
        check_same_run(workdir, default.get_config())


def test_an_old_run_keeps_its_split_rule_and_says_so(workdir, caplog):
    caplog.set_level("INFO", "laser_jax")
    old = with_values(default.get_config(), {"data.name": "folder:/photos", "data.split_rule": 1})
    write_config(workdir, old)
    caplog.clear()
    new = with_values(default.get_config(), {"data.name": "folder:/photos"})
    check_same_run(workdir, new)
    assert new.data.split_rule == 1
    assert "data.split_rule stays 1, by which this run began; 2 is not used" in caplog.text
