"""FID's Inception, against pytorch-fid on weights that a rule makes: the real ones are not here."""

import numpy as np
from skimage import data as photographs

from laser_jax.pretrained import inception_features, load_inception

# Computed once by pytorch-fid 0.3.0 (PyTorch 2.13, float64), resize to 299 included.
PYTORCH_FID = {
    "first": [
        [0.020564917, 0.003378704, 0.003517445, 0.001243099, 1.143734662, 0.037951873],
        [0.020898902, 0.000148124, 0.018526088, 0.0, 0.530484220, 0.031703011],
    ],
    "mean": [0.65167414, 0.46564974],
    "std": [0.89267426, 0.63714409],
}


def test_features_are_those_of_pytorch_fid(inception_file):
    image = photographs.astronaut().astype(np.float32) / 127.5 - 1
    crops = np.stack([image[:64, :48], image[100:164, 200:248]])
    features = inception_features(load_inception(inception_file), crops)
    assert features.shape == (2, 2048)
    np.testing.assert_allclose(features[:, :6], PYTORCH_FID["first"], atol=2e-6)
    np.testing.assert_allclose(features.mean(axis=1), PYTORCH_FID["mean"], rtol=1e-5)
    np.testing.assert_allclose(features.std(axis=1), PYTORCH_FID["std"], rtol=1e-5)
