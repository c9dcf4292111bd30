"""Learns the model that ships with the package: python -m laser_jax.pixels [--out=FILE].

It uses the training photographs of `photo_patches`, not those of validation and test. All random
numbers have a seed: the same installation on the same kind of processor learns the same model.
"""

import argparse
import logging

from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph
from laser_jax.pixels.learning import Plan, learn
from laser_jax.pixels.model import PATH, write_model


def main(argv=None):
    """Learns and writes a model."""
    parser = argparse.ArgumentParser(prog="python -m laser_jax.pixels", description=__doc__)
    parser.add_argument("--out", default=str(PATH), help="the file to write")
    for name in ("atoms", "iterations", "passes", "context_steps", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan(), name))
    options = vars(parser.parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    out = options.pop("out")
    photographs = [read_photograph(name) for name in PHOTOGRAPHS["train"]]
    write_model(out, learn(photographs, Plan(**options)))


if __name__ == "__main__":
    main()
