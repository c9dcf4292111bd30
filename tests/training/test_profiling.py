import pytest

from laser_jax.training.profiling import Profile


@pytest.mark.parametrize("last", [3, 9])
def test_profile_of_some_steps_is_written_also_if_the_run_ends_within_it(last, tmp_path):
    profile = Profile(tmp_path, 2)
    for step in range(1, last + 1):
        profile.step(step)
        written = list(tmp_path.glob("plugins/profile/*/*"))
        assert bool(written) == (step >= 7)
    profile.close()
    assert list(tmp_path.glob("plugins/profile/*/*"))


def test_no_profile_is_the_default(tmp_path):
    profile = Profile(tmp_path, 0)
    for step in range(9):
        profile.step(step)
    profile.close()
    assert not list(tmp_path.iterdir())
