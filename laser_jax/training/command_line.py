"""Loads configs from files, and sets their keys with `--config.KEY=VALUE`."""

import ast
import importlib.util
import re

from absl import flags
from ml_collections import ConfigDict

from laser_jax.paths import resolve_path

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]+)(=(.*))?", re.DOTALL)
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_PARSERS = {int: flags.IntegerParser(), float: flags.FloatParser()}


def split_overrides(argv):
    """Returns the arguments without overrides of config keys, and the overrides, key -> text.

    Overrides are `--config.KEY=VALUE`, `--config.KEY VALUE`, and for boolean keys `--config.KEY`
    and `--noconfig.KEY`. The text is None if no value follows.

    Raises:
      ValueError: if `--noconfig.KEY` has a value.
    """
    rest, overrides, words = [], {}, list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            return [*rest, word, *words], overrides
        match = _OVERRIDE.fullmatch(word)
        if match is None:
            rest.append(word)
            continue
        negated, key, equals, text = match.groups()
        if negated:
            if equals:
                raise ValueError(f"{word} takes no value: --noconfig.KEY means false.")
            text = "false"
        elif equals is None and words and not re.match(r"--?[A-Za-z]|--$", words[0]):
            text = words.pop(0)
        overrides[key] = text
    return rest, overrides


def load_config(file):
    """Returns the result of `get_config()` in a Python file.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if the path is invalid, the file cannot be run, or `get_config()` returns no
        config.
    """
    path = resolve_path(file, "--config")
    if not path.is_file():
        raise FileNotFoundError(f"the config file {file} does not exist; see configs/.")
    try:
        spec = importlib.util.spec_from_loader(
            "config", importlib.machinery.SourceFileLoader("config", str(path))
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config()
        if not isinstance(config, ConfigDict):
            raise TypeError(f"get_config() returned {config!r:.80}, not a ConfigDict")
        return config.lock()
    except Exception as error:  # a user's file can raise anything
        raise ValueError(
            f"the config file {file} cannot be used: {type(error).__name__}: {error}."
        ) from error


def override(config, overrides, template):
    """Sets keys of a config from text.

    Args:
      config: the config, changed in place.
      overrides: key -> text, from `split_overrides`.
      template: config that defines the types: a key that is None there may be `None`. The type of
        any other key is that of its value in `config`.

    Raises:
      ValueError: if a key does not exist, or a text is not a value of its type.
    """
    for key, text in overrides.items():
        try:
            group, name, kind, optional = _find(config, template, key)
            value = _parse(text, kind, optional)
        except (AttributeError, KeyError) as error:
            hint = str(error.args[0]).partition("\n")[2]  # Did you mean ...
            raise ValueError(f"--config.{key} is not a key of the config. {hint}") from error
        except (ValueError, TypeError) as error:
            given = "without a value" if text is None else f"= {text!r}"
            raise ValueError(f"--config.{key} {given}: {error}.") from error
        with config.ignore_type():
            group[name] = value


def _find(config, template, key):
    """Returns the group of a key, its name in the group, its type, and whether it may be None."""
    *groups, name = key.split(".")
    for part in groups:
        config = config[part]
        if not isinstance(config, ConfigDict):
            raise KeyError(part)
        template = template.get(part, config)
    config[name]  # raises an error that names the nearest key
    typed = template if name in template else config
    return config, name, typed.get_type(name), typed[name] is None


def _parse(text, kind, optional):
    if kind is bool and text is None:
        return True
    if text is None:
        raise ValueError("a value is needed")
    if text == "None" and (optional or kind is type(None)):
        return None
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError("it must be true or false")
        return _BOOLEANS[text.lower()]
    if kind in _PARSERS:
        return _PARSERS[kind].parse(text)
    if kind is str:
        return text
    if kind not in (tuple, object, type(None)):
        raise ValueError("this is a group of keys, not a key")
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError('it must be a number, or numbers such as "(2, 4)"') from error
    return (value,) if kind is tuple and not isinstance(value, tuple) else value
