"""The config of a run: stored in its workdir, read back, and compared with another."""

import json
import shlex

from ml_collections import config_dict

from laser_jax.files import write_json
from laser_jax.paths import resolve_config, resolve_workdir

# A run goes on only where these are unchanged: shapes, or what the numbers mean, depend on them.
_FIXED = ("model", "data.name", "data.image_size", "data.channels", "seed")
# Switching these on or off changes the state's arrays, another value does not.
_SWITCHES = ("optimizer.ema_decay", "adversarial.weight")
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
    "loss": {"perceptual_weight": 0.0, "perceptual_precision": "highest"},
    "adversarial": {"weight": 0.0},
    "eval": {"perceptual": True, "checkpoint": "newest", "split": "test"},
    "weights": {"lpips": None, "inception": None},
    "best_metric": "psnr",
    "not_finite": "stop",
    "max_skipped_steps": 10,
}


def write_config(workdir, config):
    """Stores the config as `config.json` in the workdir, which is made if need be.

    Raises:
      OSError: if the workdir cannot be written.
    """
    path = resolve_workdir(workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "config.json", config.to_dict())
    except OSError as error:
        raise OSError(f"the workdir {path} cannot be written: {error}") from error


def read_config(workdir):
    """Returns the config stored in a workdir.

    Raises:
      FileNotFoundError: if the workdir holds no run.
      ValueError: if its `config.json` is not the config of a run.
    """
    path = resolve_workdir(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path.parent} holds no run (no config.json); train one with "
            f"python main.py --config=... --workdir={shlex.quote(str(path.parent))}."
        )
    values = _stored_values(path)
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


def check_same_run(workdir, config):
    """Checks that a config continues the run a workdir holds, if it holds one.

    Sets `data.split_rule` to the run's own.

    Raises:
      ValueError: if the workdir holds a run of another architecture, data set or seed.
    """
    if not (resolve_workdir(workdir) / "config.json").exists():
        return
    stored = read_config(workdir)
    config.data.split_rule = stored.data.split_rule  # a run keeps the split that it began with
    old, new = flat_config(stored), flat_config(config)
    for values in (old, new):
        values |= {f"{key} > 0": values[key] > 0 for key in _SWITCHES}
        if values["data.name"].startswith("folder:"):  # wherever the images lie now
            values["data.name"] = "folder:"
    fixed = (*_FIXED, *(f"{key} > 0" for key in _SWITCHES))
    if old["adversarial.weight"]:
        fixed += ("adversarial.num_hiddens", "adversarial.num_downsamples")
    differ = [
        f"  {key}: {old.get(key)} there, {new.get(key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and any(key == f or key.startswith(f"{f}.") for f in fixed)
    ]
    if differ:
        raise ValueError(
            f"the workdir {workdir} holds another run:\n" + "\n".join(differ) + "\n"
            "Choose another directory with --workdir, or the config that began this one."
        )


def check_same_model(workdir, config):
    """Returns the config stored in a workdir, after checking that another describes its model.

    Raises:
      FileNotFoundError: if the workdir holds no run.
      ValueError: if it holds a run of another `model` or `seed`.
    """
    stored = resolve_config(read_config(workdir))
    old, new = flat_config(stored), flat_config(config)
    differ = [
        f"  {key}: {old.get(key)} there, {new.get(key)} now"
        for key in sorted(old.keys() | new.keys())
        if key.startswith(("model.", "seed")) and old.get(key) != new.get(key)
    ]
    if differ:
        raise ValueError(
            f"the workdir {workdir} holds another model:\n" + "\n".join(differ) + "\n"
            "Leave --config away to evaluate with the workdir's own config."
        )
    return stored


def flat_config(config):
    """Returns the config's values under their dotted names."""

    def walk(values, prefix):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    return dict(walk(config.to_dict(), ""))
