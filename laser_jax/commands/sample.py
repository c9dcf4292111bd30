"""sample: draws new pictures from a prior."""

from laser_jax.commands.pictures import write_picture
from laser_jax.commands.runs import add_run, new_path
from laser_jax.paths import printable


def add(commands):
    """Adds the command to a parser."""
    command = commands.add_parser(
        "sample", help="draw new pictures from a prior", description="Writes FILE.png, a grid."
    )
    add_run(command, kind="prior", checkpoint="best")
    command.add_argument("--out", required=True, metavar="FILE.png", help="where the grid goes")
    command.add_argument("--num", type=int, default=64, help="pictures; 64 by default")
    command.add_argument("--temperature", type=float, default=1.0, help="below 1: likelier ones")
    command.add_argument("--top_k", type=int, help="classes of a symbol that can be drawn")
    command.add_argument("--top_p", type=float, help="probability of those classes")
    command.add_argument("--label", type=int, help="the class of all pictures; by default each")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--autoencoder", help="the autoencoder's run, if it has moved")
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return command


def run(arguments):
    """Writes a grid of new pictures; returns 0."""
    out = new_path(arguments)
    if out.suffix.lower() != ".png" or out.is_dir():
        raise ValueError(f"--out must be a file that ends in .png, got {arguments.out}.")

    import time

    import jax
    import numpy as np

    from laser_jax.figures import atom_sheet
    from laser_jax.trained import TrainedPrior, load

    prior = load(
        arguments.workdir, checkpoint=arguments.checkpoint, autoencoder=arguments.autoencoder
    )
    if not isinstance(prior, TrainedPrior):
        raise ValueError(f"{arguments.workdir} holds an autoencoder; sample needs a prior's run.")
    labels, classes = arguments.label, prior.tokens.model.num_classes
    if labels is None and classes:
        labels = np.arange(arguments.num) % classes
    begin = time.perf_counter()
    images = prior.sample(
        jax.random.key(arguments.seed), arguments.num, labels=labels,
        temperature=arguments.temperature, top_k=arguments.top_k, top_p=arguments.top_p,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    out.parent.mkdir(parents=True, exist_ok=True)
    write_picture(out, np.round(255 * atom_sheet(images)).astype(np.uint8))
    speed = f"{len(images) / seconds:.1f} a second with compilation"
    print(f"{printable(out)}  {len(images)} pictures, {speed}")
    return 0
