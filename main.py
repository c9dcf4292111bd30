"""Trains and evaluates an autoencoder: python main.py --config=configs/ksvd_photos.py."""

import logging
import os
import pathlib
import sys

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", help_string="The run; by default the workdir's.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; default runs/<config's name>.")
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "prepare"],
    "train (or go on), evaluate on the test split, or only prepare the data set.",
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    if CONFIG.value is None and WORKDIR.value is None:
        raise app.UsageError("give --config=configs/NAME.py, or the --workdir of a run to go on.")
    workdir = WORKDIR.value
    if workdir is None:
        file = config_flags.get_config_filename(flags.FLAGS["config"])
        workdir = f"runs/{pathlib.Path(file).stem}"
    if not flags.FLAGS["verbosity"].present:
        absl_logging.set_verbosity(absl_logging.WARNING)  # orbax and clu tell a lot
        absl_logging.get_absl_logger().addFilter(lambda line: not line.exc_info)  # raised too
    # TensorFlow, which only writes TensorBoard's files, announces its oneDNN otherwise.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    from laser_jax import data, evaluate, run_config, sharding, stopping, train  # slow

    try:
        config = CONFIG.value or run_config.read_config(workdir)
        if MODE.value == "prepare":
            source = config.data
            data.prepare(
                source.name,
                image_size=source.image_size,
                data_dir=source.data_dir,
                split_rule=source.split_rule,
            )
            return
        sharding.initialize_distributed()
        {"train": train.train, "evaluate": evaluate.evaluate}[MODE.value](config, workdir)
    except stopping.Stopped as stopped:
        stopping.leave(stopped)
    except (ValueError, OSError, FloatingPointError, data.DataUnavailable) as error:
        if flags.FLAGS.verbosity > 0:
            raise
        sys.exit(f"{error}\n(--verbosity=1 shows where.)")


if __name__ == "__main__":
    log = logging.getLogger("laser_jax")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler())
    log.propagate = False  # plain lines, not absl's with time and place
    app.run(main)
