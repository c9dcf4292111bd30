"""The files of an evaluation."""

from configs import default
from laser_jax.evaluate import evaluation_name


def name_of(data):
    config = default.get_config()
    config.data.name = data
    return evaluation_name(default.get_config(), config)


def test_every_set_of_tfds_has_a_file_of_its_own():
    assert name_of("imagenet_resized/32x32") == "-imagenet_resized_32x32"
    assert name_of("downsampled_imagenet/32x32") == "-downsampled_imagenet_32x32"
    assert name_of("cifar100:3.0.2") == "-cifar100_3.0.2"
    assert name_of("folder:/a/photos").startswith("-photos-")
    assert name_of("folder:/a/photos") != name_of("folder:/b/photos")
