"""The commands of python -m laser_jax, a module each.

A command's `add` defines its options, its `run` does the work and returns the exit code. What is
slow to import is imported in `run`, after the paths are checked.
"""
