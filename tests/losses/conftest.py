import numpy as np
import pytest
from skimage import data as photographs


@pytest.fixture(scope="session")
def pairs():
    """Windows of a photograph of odd and even sides, in [-1, 1], and noisy copies."""
    rng = np.random.default_rng(0)
    image = photographs.coffee() / 127.5 - 1
    a = np.stack([image[i : i + 37, 2 * i : 2 * i + 50] for i in (0, 120, 250)])
    noisy = np.clip(a + 0.1 * rng.normal(size=a.shape), -1, 1)
    return a.astype(np.float32), noisy.astype(np.float32)
