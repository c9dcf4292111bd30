"""The units of the pixel codec's integers."""

PATCH = 8  # side of a patch, pixels
FINE = 16  # of predictions and means: 1/16 pixel
WEIGHT = 4096  # of the prediction's matrix: 1.0
ATOM = 256  # of an atom's entries: 1.0
STEP = 1024  # of a coefficient's step: 1/16 pixel
