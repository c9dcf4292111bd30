"""Training runs: setup, state, step, loop, checkpoints, and what a workdir holds."""
