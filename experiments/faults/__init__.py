"""What can go wrong with a run, done to it on purpose: `make faults`."""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or TensorFlow announces it
