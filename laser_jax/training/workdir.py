"""The config of a run: stored in its workdir, read back, migrated, and compared with another.

config.json          the resolved config, so that the workdir alone is enough
config_history.json  later changes: the step they took effect at, old and new value of each key
previous/N/          files of a run without a step (it failed at once, or its checkpoints were
                     deleted), moved there when another run began
"""

import datetime
import json
import logging
import shlex

from ml_collections import config_dict

from laser_jax.files import write_json
from laser_jax.paths import resolve_config, resolve_workdir

log = logging.getLogger("laser_jax")

# Keys, and groups of keys, that may change when a run goes on: none of them falsifies what the
# workdir holds. A change of num_train_steps stretches the schedule (`optimizer.build_optimizer`).
_MAY_CHANGE = (
    "num_train_steps", "log_every_steps", "eval_every_steps", "checkpoint_every_steps",
    "keep_checkpoints", "not_finite", "max_skipped_steps", "data.data_dir", "data.num_threads",
    "eval", "weights",
)  # fmt: skip
# What a run leaves in its workdir; the checkpoints first and the config last, as they are moved.
_FILES_OF_A_RUN = (
    "checkpoints", "metrics.json", "evaluation*.json", "*reconstructions*.png",
    "events.out.tfevents.*", "config_history.json", "config.json",
)  # fmt: skip


def _make_start_step_the_first(values):
    """`adversarial.start_step` was the last step without the term, and is the first with it."""
    if "start_step" in values.get("adversarial", {}):
        values["adversarial"]["start_step"] += 1


# Each changes the values of a stored config in place. A config of version n has had the first n.
_MIGRATIONS = (_make_start_step_the_first,)
# Keys that stored configs may not have yet, with the values that mean what those runs did.
_LATER = {
    "model": {
        "coefficient_l1_weight": 0.0,
        "coherence_weight": 0.0,
        "fsq_levels": (8, 5, 5, 5),
        "bit_price": 0.01,
        "coefficient_step": 0.25,
    },
    "data": {"channels": 3, "split_rule": 1},
    "loss": {
        "perceptual_weight": 0.0,
        "perceptual_precision": "highest",
        "perceptual_net": "vgg",
        "mr_dct_weight": 0.0,
        "mr_dct_levels": 3,
        "mr_grad_weight": 0.0,
        "mr_grad_levels": 3,
    },
    "adversarial": {
        "weight": 0.0,
        "start_step": 501,
        "warmup_steps": 200,
        "num_hiddens": 64,
        "num_downsamples": 2,
        "learning_rate": 2e-4,
    },
    "eval": {"perceptual": True, "checkpoint": "newest", "split": "test"},
    "weights": {"lpips": None, "inception": None},
    "best_metric": "psnr",
    "not_finite": "stop",
    "max_skipped_steps": 10,
}


def write_config(workdir, config, step=0):
    """Stores the config in the workdir, which is made if need be, and logs what it changes.

    Args:
      workdir: path of the run.
      config: the resolved config.
      step: the step from which on it holds; changes go into `config_history.json`.

    Raises:
      OSError: if the workdir cannot be written.
    """
    path = resolve_workdir(workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        changes = config_changes(workdir, config)
        if changes:
            log.info("the config changes from step %d on:\n%s", step, _lines(changes, "before"))
            time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            entry = {"step": step, "time": time, "changes": changes}
            write_json(path / "config_history.json", [*_history(path), entry])
        write_json(path / "config.json", {"version": len(_MIGRATIONS), **config.to_dict()})
    except OSError as error:
        raise OSError(f"the workdir {path} cannot be written: {error}") from error


def read_config(workdir):
    """Returns the config stored in a workdir, as the present version would have stored it.

    Raises:
      FileNotFoundError: if the workdir holds no run.
      ValueError: if its `config.json` is not the config of a run, or a later version stored it.
    """
    path = resolve_workdir(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path.parent} holds no run (no config.json); train one with "
            f"python main.py --config=... --workdir={shlex.quote(str(path.parent))}."
        )
    values = _stored_values(path)
    version = values.pop("version", 0)
    if version > len(_MIGRATIONS):
        raise ValueError(
            f"{path} has version {version}, and this laser_jax knows versions up to "
            f"{len(_MIGRATIONS)}; use the one that trained the run, or a later one."
        )
    for migrate in _MIGRATIONS[version:]:
        migrate(values)
    for key, value in values["model"].items():
        if isinstance(value, list):  # JSON has no tuples
            values["model"][key] = tuple(value)
    for key, later in _LATER.items():
        stored = values.get(key, {} if isinstance(later, dict) else later)
        values[key] = {**later, **stored} if isinstance(later, dict) else stored
    return config_dict.ConfigDict(values)


def _stored_values(path):
    """Returns the values of a `config.json`, whose groups are all there."""
    try:
        values = json.loads(path.read_text())
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path} is not the config of a run: {error}.") from error
    groups = ("data", "model", "loss", "optimizer", "eval")
    if not isinstance(values, dict) or not all(isinstance(values.get(g), dict) for g in groups):
        raise ValueError(
            f"{path} is not the config of a run: it lacks {', '.join(groups)}. "
            "Give the directory of a run that main.py trained."
        )
    return values


def has_steps(workdir):
    """Returns whether a run of this workdir has a checkpoint after its first step."""
    return any(
        path.name.isdigit() and int(path.name)
        for path in (resolve_workdir(workdir) / "checkpoints").glob("*")
    )


def make_room(workdir, config):
    """Moves the files of a run without steps to `previous/N/`, unless it began with this config."""
    path = resolve_workdir(workdir)
    if has_steps(path):
        return
    if (path / "config.json").exists() and not (config_changes(path, config) or _history(path)):
        return
    files = [file for pattern in _FILES_OF_A_RUN for file in path.glob(pattern)]
    if files:
        number = 1
        while (aside := path / "previous" / str(number)).exists():
            number += 1
        aside.mkdir(parents=True)
        for file in files:
            file.rename(aside / file.name)
        log.info("the run in %s had made no step; its files are in %s now", path, aside)


def keep_split_rule(workdir, config):
    """Sets `data.split_rule` to the one by which the run of a workdir divides its folder."""
    own = read_config(workdir).data.split_rule
    if own != config.data.split_rule and config.data.name.startswith("folder:"):
        log.info(
            "data.split_rule stays %d, by which this run began; %d is not used",
            own, config.data.split_rule,
        )  # fmt: skip
    config.data.split_rule = own


def check_same_run(workdir, config):
    """Checks that a config continues the run a workdir holds, if it holds one with steps.

    Sets `data.split_rule` to the run's own.

    Raises:
      ValueError: if a key differs that is not one of `_MAY_CHANGE`, or `config.json` is not the
        config of a run.
    """
    if not has_steps(workdir):
        config_changes(workdir, config)  # raises for a file of another program
        return
    if not (resolve_workdir(workdir) / "config.json").exists():
        raise ValueError(
            f"the workdir {workdir} holds checkpoints, and no config.json that says of what. Put "
            "it back, or choose another directory with --workdir."
        )
    keep_split_rule(workdir, config)
    changes = config_changes(workdir, config)
    differ = {key: pair for key, pair in changes.items() if not _may_change(key, pair)}
    if differ:
        raise ValueError(
            f"the workdir {workdir} holds another run:\n{_lines(differ, 'there')}\n"
            "Choose another directory with --workdir, or the config that began this one; "
            f"python main.py --workdir={shlex.quote(str(workdir))} goes on with that."
        )


def check_same_model(workdir, config):
    """Returns the config stored in a workdir, after checking that another describes its model.

    Raises:
      FileNotFoundError: if the workdir holds no run.
      ValueError: if it holds a run of another `model`, `seed` or `data.channels`.
    """
    stored, changes = resolve_config(read_config(workdir)), config_changes(workdir, config)
    of_model = ("model.", "seed", "data.channels")
    differ = {key: pair for key, pair in changes.items() if key.startswith(of_model)}
    if differ:
        raise ValueError(
            f"the workdir {workdir} holds another model:\n{_lines(differ, 'there')}\n"
            "Leave --config and these keys away to evaluate with the workdir's own config."
        )
    return stored


def config_changes(workdir, config):
    """Returns key -> (stored value, value) of the keys in which a config differs from the stored.

    Empty if the workdir holds no run.
    """
    if not (resolve_workdir(workdir) / "config.json").exists():
        return {}
    old, new = flat_config(read_config(workdir)), flat_config(config)
    keys = sorted(old.keys() | new.keys())
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def planned_lengths(workdir):
    """Returns the run's `num_train_steps` and since when: ((0, steps), (step, steps), ...)."""
    changes = [
        (entry["step"], *entry["changes"]["num_train_steps"])
        for entry in _history(resolve_workdir(workdir))
        if "num_train_steps" in entry["changes"]
    ]
    first = changes[0][1] if changes else read_config(workdir).num_train_steps
    return ((0, first), *((step, new) for step, _, new in changes))


def _may_change(key, values):
    if key == "data.name":  # a folder may move
        return all(str(value).startswith("folder:") for value in values)
    return any(key == name or key.startswith(f"{name}.") for name in _MAY_CHANGE)


def _lines(changes, before):
    return "\n".join(f"  {key}: {old} {before}, {new} now" for key, (old, new) in changes.items())


def _history(path):
    path = path / "config_history.json"
    return json.loads(path.read_text()) if path.exists() else []


def flat_config(config):
    """Returns the config's values under their dotted names."""

    def walk(values, prefix):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    return dict(walk(config.to_dict(), ""))
