"""The config of a run: stored in its workdir, read back, migrated and compared.

config.json          the resolved config; a run resumes from its workdir alone
config_history.json  later changes: their step, and the old and new value of each key
previous/N/          files of a run without a completed step (it failed at its start, or its
                     checkpoints were deleted), moved there when the next run started
"""

import datetime
import json
import logging
import shlex

from ml_collections import config_dict

from laser_jax.files import read_json, write_json, writing
from laser_jax.paths import resolve_config, resolve_workdir
from laser_jax.training.settings import SETTINGS, flat_config

log = logging.getLogger("laser_jax")

# Keys, and groups of keys, that may change when a run resumes: none of them contradicts what the
# workdir holds. A change of num_train_steps stretches the schedule (`optimizer.build_optimizer`).
_MAY_CHANGE = (
    "num_train_steps", "log_every_steps", "eval_every_steps", "checkpoint_every_steps",
    "keep_checkpoints", "profile_step", "not_finite", "max_skipped_steps",
    "data.data_dir", "data.num_threads", "data.num_workers", "model.remat",
    "prior.remat", "optimizer.accumulate_steps", "eval", "weights", "autoencoder", "patience",
)  # fmt: skip
WEIGHTS = "weights.npz"  # in exports, which have no checkpoints
_REMEDY = "Give the workdir of a run that main.py trained."
# The files of a run, in the order in which they are moved: checkpoints first, config last.
_RUN_FILES = (
    "checkpoints", "metrics.json", "evaluation*.json", "*reconstructions*.png", "tokens-*.npz",
    "samples*.png", "tokens",
    "events.out.tfevents.*", "config_history.json", "config.json",
)  # fmt: skip


def _shift_start_step(values):
    """`adversarial.start_step` was the last step without the term; now it is the first with it."""
    if "start_step" in values.get("adversarial", {}):
        values["adversarial"]["start_step"] += 1


def _drop_ignored_patch_size(values):
    """Only the sparse bottlenecks had patches: the others ignored `patch_size`."""
    if values["model"].get("bottleneck") in ("vq", "rvq", "fsq"):
        values["model"]["patch_size"] = 1


# Each changes the values of a stored config in place. The first n are applied to version n already.
_MIGRATIONS = (_shift_start_step, _drop_ignored_patch_size)
# Keys that older configs lack, with the values that reproduce the behaviour of those runs.
_ADDED_KEYS = {
    "model": {
        "coefficient_l1_weight": 0.0,
        "coherence_weight": 0.0,
        "fsq_levels": (8, 5, 5, 5),
        "bit_price": 0.01,
        "coefficient_step": 0.25,
        "gradient_estimator": "straight_through",
        "price_warmup_steps": 0,
        "rate_weight": 0.0,
        "stage_coder": "nearest",
        "distance": "euclidean",
        "network": "vqvae",
        "channel_multipliers": (1, 2, 4),
        "attention_levels": (),
        "z_channels": 256,
        "remat": False,
        "num_atoms": 512,
    },
    "data": {"channels": 3, "split_rule": 1, "num_workers": 0, "min_crop_area": 1.0},
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
    "optimizer": {"accumulate_steps": 1},
    "eval": {"table_images": 4096, "perceptual": True, "checkpoint": "newest", "split": "test"},
    "weights": {"lpips": None, "inception": None},
    "best_metric": "psnr",
    "not_finite": "stop",
    "max_skipped_steps": 10,
    "patience": 0,
    "init_from": None,
    "profile_step": 0,
    "autoencoder": None,
    "prior": {
        "kind": None,
        "copies": 1,
        "use_labels": False,
        "width": 128,
        "num_layers": 4,
        "num_inner_layers": 2,
        "num_heads": 4,
        "dropout": 0.1,
        "remat": False,
        "dtype": "float32",
    },
}


def write_config(workdir, config, step=0):
    """Stores the config in the workdir and logs its changes; creates the workdir if necessary.

    Args:
      workdir: path of the run.
      config: the resolved config.
      step: the step from which on the config is in force; for `config_history.json`.

    Raises:
      OSError: if the workdir cannot be written.
    """
    path = resolve_workdir(workdir)
    with writing(f"the workdir {path}"):
        path.mkdir(parents=True, exist_ok=True)
        changes = config_changes(workdir, config)
        if changes:
            log.info(
                "the config changes from step %d on:\n%s", step, _lines(changes, "before", "now")
            )
            time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            entry = {"step": step, "time": time, "changes": changes}
            write_json(path / "config_history.json", [*_history(path), entry])
        write_json(path / "config.json", {"version": len(_MIGRATIONS), **config.to_dict()})


def read_config(workdir):
    """Returns the config stored in a workdir, migrated to the current version.

    Raises:
      FileNotFoundError: if the workdir holds no run.
      ValueError: if its `config.json` is not the config of a run, or its version is newer.
    """
    path = resolve_workdir(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path.parent} holds no run (no config.json); train one with "
            f"python main.py --config=... --workdir={shlex.quote(str(path.parent))}."
        )
    values = _stored_values(path)
    version = values.pop("version", 0)
    if not isinstance(version, int) or version > len(_MIGRATIONS):
        raise ValueError(
            f"{path} has version {version}; this laser_jax supports versions up to "
            f"{len(_MIGRATIONS)}. Use the laser_jax that trained the run, or a newer one."
        )
    for migrate in _MIGRATIONS[version:]:
        migrate(values)
    for group in ("model", "data"):
        for key, value in values[group].items():
            if isinstance(value, list):  # JSON has no tuples
                values[group][key] = tuple(value)
    for key, later in _ADDED_KEYS.items():
        stored = values.get(key, {} if isinstance(later, dict) else later)
        values[key] = {**later, **stored} if isinstance(later, dict) else stored
    config = config_dict.ConfigDict(values)
    missing = SETTINGS.keys() - flat_config(config).keys()
    if missing:
        raise ValueError(
            f"{path} is not the config of a run: it lacks {', '.join(sorted(missing)[:5])}"
            f"{' and more' if len(missing) > 5 else ''}. {_REMEDY}"
        )
    return config


def _stored_values(path):
    """Returns the values of a `config.json`, after checking that it is the config of a run."""
    try:
        values = json.loads(path.read_text())
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"{path} is not the config of a run: {error}.") from error
    groups = ("data", "model", "loss", "optimizer", "eval")
    optional = ("adversarial", "weights", "prior")  # of later versions
    if not isinstance(values, dict) or not all(
        isinstance(values.get(group, {} if group in optional else None), dict)
        for group in (*groups, *optional)
    ):
        raise ValueError(
            f"{path} is not the config of a run: it must have the groups {', '.join(groups)}. "
            f"{_REMEDY}"
        )
    return values


def has_steps(workdir):
    """Returns whether the workdir has a checkpoint of a completed step."""
    return any(
        path.name.isdigit() and int(path.name)
        for path in (resolve_workdir(workdir) / "checkpoints").glob("*")
    )


def archive_unstarted_run(workdir, config):
    """Moves the files of a run without a completed step to `previous/N/`.

    They stay if the config is the same.
    """
    path = resolve_workdir(workdir)
    if has_steps(path):
        return
    if (path / "config.json").exists() and not (config_changes(path, config) or _history(path)):
        return
    files = [file for pattern in _RUN_FILES for file in path.glob(pattern)]
    if files:
        number = 1
        while (archive := path / "previous" / str(number)).exists():
            number += 1
        archive.mkdir(parents=True)
        for file in files:
            file.rename(archive / file.name)
        log.info("the run in %s completed no step; its files were moved to %s", path, archive)


def keep_own(workdir, config):
    """Sets `data.split_rule`, and `init_from` if it is None, to those of the run in a workdir."""
    stored = read_config(workdir)
    own = stored.data.split_rule
    if config.init_from is None:
        config.init_from = stored.init_from
    if own != config.data.split_rule and config.data.name.startswith("folder:"):
        log.info(
            "data.split_rule stays %d, the rule of this run; %d is ignored",
            own, config.data.split_rule,
        )  # fmt: skip
    config.data.split_rule = own


def check_same_run(workdir, config):
    """Checks that a config can resume the run of a workdir, if it has completed a step.

    Sets `data.split_rule` to the rule of that run, and `init_from` where it is left out.

    Raises:
      ValueError: if a key outside `_MAY_CHANGE` differs, or `config.json` is missing or not the
        config of a run.
    """
    if (resolve_workdir(workdir) / WEIGHTS).exists():
        raise ValueError(
            f"the workdir {workdir} holds exported weights, which cannot be trained further. Start "
            f"from them in another --workdir with --config.init_from={shlex.quote(str(workdir))}."
        )
    if not has_steps(workdir):
        config_changes(workdir, config)  # raises if another program wrote it
        return
    if not (resolve_workdir(workdir) / "config.json").exists():
        raise ValueError(
            f"the workdir {workdir} holds checkpoints but no config.json. Restore the file, or "
            "choose another directory with --workdir."
        )
    keep_own(workdir, config)
    changes = config_changes(workdir, config)
    differ = {key: pair for key, pair in changes.items() if not _may_change(key, pair)}
    if not read_config(workdir).adversarial.weight:  # a discriminator may be added
        differ = {key: pair for key, pair in differ.items() if not key.startswith("adversarial.")}
    if differ:
        raise ValueError(
            f"the workdir {workdir} holds a different run:\n{_lines(differ, 'stored', 'given')}\n"
            "Choose another directory with --workdir, or resume the run with its own config: "
            f"python main.py --workdir={shlex.quote(str(workdir))}."
        )


def check_same_model(workdir, config):
    """Returns the config stored in a workdir, after checking that `config` describes its model.

    Raises:
      FileNotFoundError: if the workdir holds no run.
      ValueError: if a key of `model` or `prior`, `seed` or `data.channels` differs.
    """
    stored, changes = resolve_config(read_config(workdir)), config_changes(workdir, config)
    model_keys = ("model.", "prior.", "seed", "data.channels")
    differ = {
        key: pair
        for key, pair in changes.items()
        if key.startswith(model_keys) and not _may_change(key, pair)
    }
    if differ:
        raise ValueError(
            f"the workdir {workdir} holds a different model:\n{_lines(differ, 'stored', 'given')}\n"
            "Omit --config and these keys to evaluate with the workdir's own config."
        )
    return stored


def config_changes(workdir, config):
    """Returns key -> (stored value, new value) of every key that differs from the stored config.

    Empty if the workdir holds no run.
    """
    if not (resolve_workdir(workdir) / "config.json").exists():
        return {}
    old, new = flat_config(read_config(workdir)), flat_config(config)
    keys = sorted(old.keys() | new.keys())
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def planned_lengths(workdir):
    """Returns each `num_train_steps` of the run with the step it was set at.

    For example `((0, 40), (20, 60))`: 40 at the start, changed to 60 at step 20.
    """
    changes = [
        (entry["step"], *entry["changes"]["num_train_steps"])
        for entry in _history(resolve_workdir(workdir))
        if "num_train_steps" in entry["changes"]
    ]
    first = changes[0][1] if changes else read_config(workdir).num_train_steps
    return ((0, first), *((step, new) for step, _, new in changes))


def _may_change(key, values):
    if key == "data.name":  # the folder may have moved
        return all(str(value).startswith("folder:") for value in values)
    return any(key == name or key.startswith(f"{name}.") for name in _MAY_CHANGE)


def _lines(changes, old_label, new_label):
    return "\n".join(
        f"  {key}: {old} {old_label}, {new} {new_label}" for key, (old, new) in changes.items()
    )


def _history(path):
    path = path / "config_history.json"
    # Without it the schedule of a resumed run would be another one.
    remedy = "Restore it: it has the changes of the config, such as of num_train_steps."
    return read_json(path, remedy) if path.exists() else []
