"""The options that name a run and a new file, and how they are read."""


def add_run(command, *, kind="run", checkpoint="newest"):
    """Adds the options of a command that needs a trained run."""
    command.add_argument("--workdir", required=True, help=f"the trained {kind}")
    add_checkpoint(command, checkpoint)


def add_checkpoint(command, default=None):
    """Adds the option of the checkpoint; None: `load_run` takes the newest."""
    command.add_argument("--checkpoint", default=default, choices=("newest", "best"))


def new_path(arguments, name=""):
    """Returns the path of --out, or of `name` below it.

    Raises:
      ValueError: if it exists, and --overwrite is not given.
    """
    from laser_jax.paths import resolve_path

    path = resolve_path(arguments.out, "--out") / name
    check_new([path], arguments)
    return path


def check_new(paths, arguments):
    """Raises ValueError if a path exists, and --overwrite is not given."""
    if not arguments.overwrite and (existing := [path for path in paths if path.exists()]):
        raise ValueError(f"{existing[0]} exists; choose another --out, or give --overwrite.")


def load_run(arguments):
    """Returns the `TrainedAutoencoder` that the arguments name."""
    from laser_jax.trained import TrainedAutoencoder, load

    model = load(arguments.workdir, checkpoint=arguments.checkpoint or "newest")
    if not isinstance(model, TrainedAutoencoder):
        raise ValueError(f"{arguments.workdir} holds a prior; give the run of an autoencoder.")
    return model
