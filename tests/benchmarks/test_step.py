import numpy as np
import pytest

from benchmarks import step
from benchmarks.timing import installed

TWINS = ["vq", "rvq", "fsq", "gradient", "online", "ksvd"]
SMALL = step.Options(num_hiddens=8, batch_size=8, rounds=1)


def test_table_has_a_line_for_each_row_with_its_milliseconds(capsys):
    step.print_rows(step.build_rows({"fsq": step.ROWS["fsq"]}, {}, SMALL), {}, SMALL)
    name, *numbers = (x.strip() for x in capsys.readouterr().out.splitlines()[-1].split("|")[1:6])
    assert name == "fsq" and all(float(x) > 0 for x in numbers)  # ms, images/s, compile, memory


@pytest.mark.skipif(not installed("torch"), reason="PyTorch is not installed")
@pytest.mark.parametrize("bottleneck", TWINS)
def test_twin_learns_to_reconstruct(bottleneck):
    from benchmarks import torch_twins

    torch_twins.torch.manual_seed(0)
    torch_twins.torch.set_num_threads(1)  # others spin while they wait for work
    train_step = torch_twins.TrainStep(bottleneck, hiddens=8, atoms=16, width=8, sparsity=2)
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[:, None], (8, 32, 32, 3))
    losses = [train_step(torch_twins.tensor(ramp)) for _ in range(10)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert train_step.encoder[0].weight.is_contiguous(memory_format=torch_twins.torch.channels_last)


def test_every_twin_is_compared_with_a_row():
    assert list(step.TORCH_ROWS) == TWINS and set(step.TORCH_ROWS.values()) <= set(step.ROWS)
