"""export: writes the tokens of a data set."""

import sys

from laser_jax.commands.runs import add_run, load_run, new_path
from laser_jax.paths import printable, resolve_data_name


def add(commands):
    """Adds the command to a parser."""
    command = commands.add_parser(
        "export", help="write the tokens of a data set",
        description="Writes DIR/tokens/SPLIT.array_record, a record a picture: its class and its "
        "symbols, int32; and DIR/tokens/about.json, which says what they are.",
    )  # fmt: skip
    add_run(command)
    command.add_argument("--out", required=True, metavar="DIR", help="where the tokens go")
    command.add_argument("--data", metavar="NAME", help="as data.name; by default the run's set")
    command.add_argument("--data_dir", help="as data.data_dir")
    command.add_argument(
        "--splits", nargs="+", help="train, validation, test; by default those that have pictures"
    )
    command.add_argument("--overwrite", action="store_true", help="replace existing tokens")
    return command


def run(arguments):
    """Writes the tokens of a data set's splits; returns 0."""
    tokens = new_path(arguments, "tokens")

    from laser_jax.data import DataUnavailable
    from laser_jax.data.folder import SPLIT_RULE
    from laser_jax.training.token_set import export_tokens

    model = load_run(arguments)
    data = model.config.data.copy_and_resolve_references()
    if arguments.data is not None:
        name = resolve_data_name(arguments.data)
        if name != resolve_data_name(data.name):
            data.name, data.split_rule = name, SPLIT_RULE  # not the run's rule
    with data.ignore_type():
        data.data_dir = arguments.data_dir or data.data_dir
    try:
        sources = _open(data, arguments.splits)
    except DataUnavailable as error:
        raise OSError(error) from error
    tokens.parent.mkdir(parents=True, exist_ok=True)
    export_tokens(tokens.parent, model.codec, sources, batch_size=model.config.eval.batch_size)
    for split, source in sources.items():
        print(f"{printable(tokens / split)}.array_record  {len(source)} pictures")
    return 0


def _open(data, splits):
    """Returns split -> source; without splits, of those that have pictures."""
    from laser_jax.data import SPLITS, EmptySplit, open_split

    if splits is not None:
        return {split: open_split(data, split) for split in splits}
    sources, errors = {}, {}
    for split in SPLITS:
        try:
            sources[split] = open_split(data, split)
        except EmptySplit as error:
            errors[split] = error
    if not sources:
        raise errors["train"]
    for split, reason in errors.items():
        print(printable(f"{split} is left out: {reason}"), file=sys.stderr)
    return sources
