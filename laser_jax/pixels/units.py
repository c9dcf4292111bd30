"""The units of the pixel codec's integers."""

PATCH = 8  # side of a patch, pixels
FINE = 16  # predictions and means are in units of 1/16 pixel value
WEIGHT = 4096  # 1.0 in the prediction's matrix
ATOM = 256  # 1.0 in an atom's entries
STEP = 1024  # 1/16 pixel value in a coefficient's step
