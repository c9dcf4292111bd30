"""report: writes one HTML page of a run."""

from laser_jax.commands.runs import add_run, new_path
from laser_jax.paths import printable


def add(commands):
    """Adds the command to a parser."""
    command = commands.add_parser(
        "report", help="write one HTML page of a run",
        description="Writes FILE.html: metrics and evaluations, curves, reconstructions, use and "
        "look of the atoms, config. It needs no other file.",
    )  # fmt: skip
    add_run(command)
    command.add_argument("--out", required=True, metavar="FILE.html", help="where the page goes")
    command.add_argument("--overwrite", action="store_true", help="replace an existing page")
    return command


def run(arguments):
    """Writes the page of a run; returns 0."""
    out = new_path(arguments)

    from laser_jax.run_page import write_page

    write_page(arguments.workdir, out, checkpoint=arguments.checkpoint)
    print(printable(out))
    return 0
