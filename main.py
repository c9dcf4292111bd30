"""Trains and evaluates an autoencoder: python main.py --config=configs/ksvd_photos.py.

Any key of the config can be set: --config.model.sparsity_level=4. With --workdir alone, a run
resumes with its own config.
"""

import logging
import os
import pathlib
import sys

from absl import flags
from absl import logging as absl_logging

from laser_jax import allocator
from laser_jax.paths import resolve_workdir
from laser_jax.training import command_line


def read_flags(argv):
    """Returns the values of the flags, and the overrides of config keys, key -> text."""
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "The config file; by default the workdir's config.",
                        flag_values=values)  # fmt: skip
    flags.DEFINE_string("workdir", None, "Directory of the run; default runs/<name of the config>.",
                        flag_values=values)  # fmt: skip
    modes = ["train", "evaluate", "prepare"]
    flags.DEFINE_enum(
        "mode", "train", modes,
        "train (or resume), evaluate on a split, or only prepare the data set.", flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("verbosity", None, "1: logs of libraries, and tracebacks of errors.",
                         flag_values=values)  # fmt: skip
    flags.DEFINE_boolean("help", False, "Show this text.", short_name="h", flag_values=values)
    argv, overrides = command_line.split_overrides(values.read_flags_from_files(argv))
    words = values(argv)[1:]
    if words:
        raise flags.Error(f"unexpected argument {words[0]!r}")
    return values, overrides


def main(argv):
    """Runs the program; errors of users exit with a message instead of a traceback."""
    try:
        values, overrides = read_flags(argv)
    except (flags.Error, ValueError) as error:
        sys.exit(f"{str(error).rstrip('.')}. (--help lists the flags.)")
    if values.help:
        print(f"{__doc__}\n{values.get_help()}")
        return
    if values.config is None and values.workdir is None:
        sys.exit("give --config=configs/NAME.py, or the --workdir of a run to resume.")
    try:
        run(values, overrides)
    except (ValueError, OSError, FloatingPointError) as error:
        if values.verbosity:
            raise
        text = str(error)
        sys.exit(text + ("\n" if "\n" in text else " ") + "(--verbosity=1 shows the traceback.)")


def run(values, overrides):
    """Trains, evaluates or prepares the data set, as the flags say."""
    workdir = values.workdir
    if workdir is None:
        workdir = f"runs/{pathlib.Path(values.config).stem}"
    workdir = resolve_workdir(workdir)
    if values.config is not None:
        config = command_line.load_config(values.config)
        command_line.override(config, overrides, template=config)
    if values.verbosity is None:
        absl_logging.set_verbosity(absl_logging.WARNING)  # orbax and clu log a lot
        absl_logging.get_absl_logger().addFilter(lambda line: not line.exc_info)  # raised anyway
    else:
        absl_logging.set_verbosity(values.verbosity)
    # Otherwise TensorFlow, which only writes event files, logs messages about oneDNN.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # SciPy's LAPACK starts threads for each of K-SVD's small matrices, which cost more than they
    # save. It reads the variable when it is loaded, at the first SVD.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from laser_jax import data, sharding  # slow
    from laser_jax.training import preemption
    from laser_jax.training.workdir import read_config

    if values.config is None:
        from configs import default

        config = read_config(workdir)
        command_line.override(config, overrides, template=default.get_config())
    try:
        if values.mode == "prepare":
            source = config.data
            data.prepare(
                source.name,
                image_size=source.image_size,
                data_dir=source.data_dir,
                split_rule=source.split_rule,
            )
            return
        sharding.initialize_distributed()
        if values.mode == "train":
            from laser_jax.training.loop import train  # loads TensorFlow for the event files

            train(config, workdir)
        else:
            from laser_jax.evaluate import evaluate

            evaluate(config, workdir)
    except preemption.Stopped as stopped:
        preemption.exit_stopped(stopped)
    except data.DataUnavailable as error:
        raise OSError(error) from error


def open_standard_streams():
    """Opens the null device for closed standard streams, so that no file gets their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, errors="backslashreplace"))


if __name__ == "__main__":
    open_standard_streams()
    allocator.keep_freed_memory()
    absl_logging.use_absl_handler()
    log = logging.getLogger("laser_jax")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler())
    log.propagate = False  # plain lines, without absl's time and source line
    main(sys.argv)
