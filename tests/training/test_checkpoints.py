import logging
import shutil

import jax
import numpy as np
import pytest

from laser_jax.training.checkpoints import (
    CheckpointNotWritten,
    Checkpoints,
    DamagedCheckpoints,
    checksums,
)
from laser_jax.training.state import TrainState
from tests.faults.disks import DAMAGE


@pytest.fixture(autouse=True)
def heard(caplog):
    log = logging.getLogger("laser_jax")
    caplog.set_level(logging.WARNING, "laser_jax")
    log.propagate = True


def state_at(step):
    rng = np.random.default_rng(step)
    params = {"w": rng.standard_normal((300, 7)).astype(np.float32)}
    empty = {}
    state = TrainState(
        step=np.int32(step), params=params, dictionary={"atoms": rng.random((4, 3), np.float32)},
        opt_state=empty, ema_params=empty, extra=empty,
    )  # fmt: skip
    return jax.device_put(state)


@pytest.fixture
def workdir(tmp_path):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(state_at(step))
    return tmp_path


def restore(workdir, keep=None, which="newest", best_metric="psnr"):
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_at(0)
    )
    with Checkpoints(workdir, keep=keep, best_metric=best_metric) as checkpoints:
        return checkpoints.restore(abstract, which)


def assert_step(state, step):
    assert int(state.step) == step
    jax.tree.map(np.testing.assert_array_equal, state, state_at(step))


def files(workdir, step):
    found = [path for path in (workdir / "checkpoints" / str(step)).rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: -path.stat().st_size)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_any_damaged_file_is_detected(damage, workdir, tmp_path_factory, caplog):
    for i in range(len(files(workdir, 30))):
        copy = tmp_path_factory.mktemp("copy") / "run"
        shutil.copytree(workdir, copy)
        path = files(copy, 30)[i]
        size = path.stat().st_size
        if size:
            damage(path)
        # Either it changes nothing of the values, or the one before is taken.
        state = restore(copy)
        assert_step(state, int(state.step))
        if size > 4000:  # it holds the values
            assert int(state.step) == 20
            assert "checkpoint 30 of" in caplog.text and "back to checkpoint 20" in caplog.text


def test_checkpoint_with_wrong_values_is_never_restored(workdir, caplog, monkeypatch):
    honest = checksums

    def dishonest(state):
        found = honest(state)
        return found | {".params['w']": 0} if int(state.step) == 30 else found

    monkeypatch.setattr("laser_jax.training.checkpoints.checksums", dishonest)
    assert_step(restore(workdir), 20)
    assert "wrong checksums: .params['w']" in caplog.text


def test_damaged_checkpoint_is_moved_and_its_step_written_again(workdir):
    files(workdir, 30)[0].write_bytes(b"")
    assert_step(restore(workdir), 20)
    assert (workdir / "checkpoints" / "30").exists()  # who only reads moves nothing
    assert_step(restore(workdir, keep=3), 20)
    assert (workdir / "damaged" / "30").exists()
    with Checkpoints(workdir, keep=3) as checkpoints:
        checkpoints.save(state_at(30))
    assert_step(restore(workdir), 30)


def test_no_intact_checkpoint_raises_and_deletes_nothing(workdir):
    for step in (10, 20, 30):
        files(workdir, step)[0].write_bytes(b"")
    with pytest.raises(DamagedCheckpoints, match="no checkpoint of .*\n  30: .*\n  20: .*\n  10: "):
        restore(workdir, keep=3)
    assert all((workdir / "checkpoints" / str(step)).exists() for step in (10, 20, 30))


def test_older_checkpoints_without_checksums_are_restored(workdir, monkeypatch):
    monkeypatch.setattr("laser_jax.training.checkpoints.checksums", lambda state: None)
    with Checkpoints(workdir, keep=3) as checkpoints:
        checkpoints.save(state_at(40))
    monkeypatch.undo()
    assert_step(restore(workdir), 40)


def test_first_checkpoint_is_verified_after_its_write(tmp_path, monkeypatch):
    monkeypatch.setattr("laser_jax.training.checkpoints.resolve_workdir", lambda path: path)
    path = tmp_path / "[a]"  # orbax writes no index there
    message = "checkpoint 10 was written in .* and cannot be read back: (.|\n)*another --workdir"
    with pytest.raises(CheckpointNotWritten, match=message), Checkpoints(path, keep=3) as found:
        found.save(state_at(10))


def steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize("best_metric, best", [("psnr", 10), ("loss", 20)])
def test_newest_and_best_checkpoints_are_kept(best_metric, best, tmp_path):
    quality = {10: {"psnr": 30.0, "loss": 0.3}, 20: {"psnr": 20.0, "loss": 0.1},
               40: {"psnr": 29.0, "loss": 0.2}}  # fmt: skip
    for first in (10, 40):  # a resumed run knows the best checkpoint before it
        with Checkpoints(tmp_path, keep=2, best_metric=best_metric) as checkpoints:
            for step in range(first, first + 30, 10):
                checkpoints.save(state_at(step), quality.get(step))
            assert checkpoints.steps_since_best() == {10: 20, 40: 40}[first] - best
    assert steps(tmp_path) == [best, 50, 60]
    assert_step(restore(tmp_path), 60)
    assert_step(restore(tmp_path, which="best", best_metric=best_metric), best)


def test_run_without_validation_has_no_best_checkpoint(workdir):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint with a validation"):
        restore(workdir, which="best")


def test_damaged_best_checkpoint_falls_back_to_the_next_best(tmp_path, caplog):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step, psnr in ((10, 20.0), (20, 30.0), (30, 25.0)):
            checkpoints.save(state_at(step), {"psnr": psnr})
    files(tmp_path, 20)[0].write_bytes(b"")
    assert_step(restore(tmp_path, which="best"), 30)
    assert "falling back to checkpoint 30, the best intact one" in caplog.text


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_full_disk_raises_and_keeps_earlier_checkpoints(fault, small_disk):
    message = (
        "no checkpoint can be written in .*(No space left|Read-only)(.|\n)*Checkpoint 10 is intact"
    )
    with Checkpoints(small_disk.path, keep=3) as checkpoints:
        checkpoints.save(state_at(10))
    small_disk.break_by(fault)
    with (
        pytest.raises(CheckpointNotWritten, match=message),
        Checkpoints(small_disk.path, keep=3) as checkpoints,
    ):
        checkpoints.save(state_at(20))
    small_disk.repair()
    assert_step(restore(small_disk.path), 10)
    with Checkpoints(small_disk.path, keep=3) as checkpoints:
        checkpoints.save(state_at(20))
    assert_step(restore(small_disk.path), 20)
    assert steps(small_disk.path) == [10, 20]  # nothing half written is left
