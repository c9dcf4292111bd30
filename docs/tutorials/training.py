# %% [markdown]
# # Train, stop, resume and load an autoencoder
#
# Training runs from a clone of the repository, with one command. This tutorial runs that command on
# a small model, stops it in the middle as a scheduler would, starts it again, and loads the result
# in Python. It takes a minute or two on a laptop and downloads nothing: the images are windows of
# photographs that come inside Python packages.

# %%
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import laser_jax
from laser_jax.data import open_split
from laser_jax.figures import reconstruction_grid
from laser_jax.figures.curves import read_scalars

STEPS = 300
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # TensorFlow writes the curves, and logs a lot
workdir = pathlib.Path(tempfile.mkdtemp()) / "run"
command = [
    sys.executable, "main.py", "--config=configs/tiny.py", f"--workdir={workdir}",
    f"--config.num_train_steps={STEPS}", f"--config.log_every_steps={STEPS // 6}",
    f"--config.eval_every_steps={STEPS // 2}", "--config.model.num_hiddens=32",
]  # fmt: skip

# %% [markdown]
# A config is a Python file; `configs/tiny.py` trains in seconds, `configs/ksvd_photos.py` in
# minutes. Any key can be set on the command line. In a shell the command is `python main.py
# --config=configs/tiny.py --workdir=runs/tiny`.
#
# ## Stop
#
# After the second log line the run gets SIGTERM, as from a scheduler or on a preemptible machine
# (Ctrl-C does the same). It finishes its step, writes a checkpoint and ends with exit code 75,
# which means: run the same command again.


# %%
def show(line):
    """Prints a log line; not the table of parameters, and no warnings of libraries."""
    if not line.startswith(("|", "+", "W")):
        print(line.rstrip().replace(str(workdir), "runs/tiny"))


process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
steps = 0
for line in process.stderr:
    show(line)
    steps += line.startswith("step ")
    if steps == 2 and line.startswith("step "):
        process.send_signal(signal.SIGTERM)
print("exit code", process.wait())

# %% [markdown]
# ## Resume
#
# The same command resumes from the newest checkpoint. Batches and random numbers depend on the seed
# and the step alone, so the state of the resumed run is bit-identical to that of an uninterrupted
# run (on a CPU). A run that is killed without a warning loses the steps since its last checkpoint
# (`checkpoint_every_steps`) and nothing else.

# %%
resumed = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
for line in resumed.stderr.splitlines():
    show(line)

# %% [markdown]
# The curves are TensorBoard files, so `tensorboard --logdir=runs` shows them; here they are read
# back. The second process continues where the first one stopped.

# %%
scalars = read_scalars(workdir)
figure, axis = plt.subplots(figsize=(7, 3))
for tag, look in (("train/psnr", "-o"), ("val/psnr", "s")):
    axis.plot(*scalars[tag], look, markersize=4, label=tag)
axis.set(xlabel="step", ylabel="PSNR, dB")
axis.legend()
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Load
#
# `laser_jax.load` reads the config and the newest checkpoint (`checkpoint="best"`: the best one by
# validation). The result has the methods `reconstruct`, `encode` and `decode`.

# %%
trained = laser_jax.load(workdir)
source = open_split(trained.config.data, "test")
images = np.stack([source[i] for i in range(0, len(source), len(source) // 8)][:8])
reconstruction = trained.reconstruct(images)
code = trained.encode(images)
print("step", int(trained.state.step), "of", trained.config.num_train_steps)
print("images", images.shape, "-> indices", code.indices.shape, "-> images", reconstruction.shape)
same = np.allclose(trained.decode(code), reconstruction, atol=1e-5)
print("equal to decode(encode(images)):", same)
for part, values in code._asdict().items():
    print(f"first {part}: {np.asarray(values)[0, 0, 0].round(2)}")

# %%
figure, axis = plt.subplots(figsize=(9, 3.6))
axis.imshow(reconstruction_grid(images / 255, reconstruction))
axis.set_title("test windows, reconstructions, and errors four times as bright", fontsize=9)
axis.axis("off")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Evaluate
#
# `--mode=evaluate` measures the test split and writes `evaluation.json`: quality, rate, and how
# many atoms are used. (`configs/tiny.py` leaves out LPIPS, which takes longer than this training.)

# %%
subprocess.run([*command, "--mode=evaluate"], stderr=subprocess.DEVNULL, check=True)
evaluation = json.loads((workdir / "evaluation.json").read_text())
for name in ("step", "psnr", "ssim", "bits_per_pixel", "dictionary_usage"):
    print(f"{name:18}{evaluation[name]:.4g}")

# %% [markdown]
# ## What next
#
# - [Training](../training.md) describes bottlenecks, dictionary updates and losses, several devices
#   and hosts, and what to do when results are poor.
# - [Compare bottlenecks at equal rate](bottlenecks.md).
# - [Data](../data.md): your own folder of images, `--config.data.name=folder:PATH`.
