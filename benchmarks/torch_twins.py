"""PyTorch twins of what the benchmarks time: OMP, a K-SVD sweep, a training step.

They are written as PyTorch code usually is: batched over signals, whole arrays, no blocks.
"""

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def device():
    """Returns the device that JAX computes on, as PyTorch names it."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def tensor(array):
    """Returns an array as a tensor on the device that JAX computes on."""
    return torch.from_numpy(np.array(array)).to(device())


def synchronised(result):
    """Returns a result once it is computed."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result


def omp(signals, dictionary, sparsity):
    """Batched OMP: correlate, argmax, gather the Gram matrix, `torch.linalg.solve`.

    Returns indices and coefficients `(n, k)` of signals `(n, d)` in unit-norm atoms `(m, d)`.
    """
    gram = dictionary @ dictionary.T
    first = signals @ dictionary.T
    correlations, indices = first.clone(), []
    for _ in range(sparsity):
        indices.append(correlations.abs().argmax(1))
        support = torch.stack(indices, 1)
        chosen = gram[support[:, :, None], support[:, None, :]]
        coefficients = torch.linalg.solve(chosen, first.gather(1, support)[..., None])[..., 0]
        residual = signals - torch.einsum("nk,nkd->nd", coefficients, dictionary[support])
        correlations = residual @ dictionary.T
    return support, coefficients


def ksvd_sweep(signals, dictionary, indices, coefficients):
    """One K-SVD sweep: a loop over atoms, the SVD of each one's users' errors. In place."""
    residual = signals - torch.einsum("nk,nkd->nd", coefficients, dictionary[indices])
    for atom in range(dictionary.shape[0]):
        signal, place = torch.nonzero(indices == atom, as_tuple=True)
        if len(signal) == 0:
            continue
        errors = residual[signal] + coefficients[signal, place, None] * dictionary[atom]
        u, s, vh = torch.linalg.svd(errors, full_matrices=False)
        dictionary[atom] = vh[0]
        coefficients[signal, place] = u[:, 0] * s[0]
        residual[signal] = errors - coefficients[signal, place, None] * dictionary[atom]
    return dictionary, coefficients


class Residual(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x):
        return x + self.layers(x)


def autoencoder(hiddens, width):
    """Returns encoder and decoder of `laser_jax.models.Autoencoder` at its default depth."""
    encoder = nn.Sequential(
        nn.Conv2d(3, hiddens // 2, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hiddens // 2, hiddens, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hiddens, hiddens, 3, padding=1),
        Residual(hiddens, 32),
        Residual(hiddens, 32),
        nn.ReLU(),
        nn.Conv2d(hiddens, width, 1),
    )
    decoder = nn.Sequential(
        nn.Conv2d(width, hiddens, 3, padding=1),
        nn.Conv2d(hiddens, hiddens, 3, padding=1),
        Residual(hiddens, 32),
        Residual(hiddens, 32),
        nn.ReLU(),
        nn.ConvTranspose2d(hiddens, hiddens // 2, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(hiddens // 2, 3, 4, stride=2, padding=1),
    )
    return encoder, decoder


FSQ_LEVELS = (8, 5, 5, 5)


def squash(latents):
    """FSQ: latents bounded so that rounding leaves `FSQ_LEVELS` values a channel; half widths."""
    levels = latents.new_tensor(FSQ_LEVELS)
    half = (levels - 1) * 1.001 / 2
    offset = (levels % 2 == 0) / 2
    shift = torch.atanh(offset / half)
    return torch.tanh(latents + shift) * half - offset, levels // 2


class TrainStep:
    """A training step of the same network in PyTorch, on the device that JAX computes on.

    Called with a uint8 tensor of images `(b, H, W, 3)` it returns the loss. Activations and
    filters are `channels_last`, and AdamW is the fused one: both are the faster choice.

    `bottleneck` is "vq", "rvq" (four stages; both with decayed means), "fsq", or how the dictionary
    learns: "gradient", "online" (residual update) or "ksvd" (a sweep every step).
    """

    def __init__(self, bottleneck, *, hiddens, atoms=512, width=64, sparsity=8):
        self.bottleneck, self.sparsity = bottleneck, sparsity
        width = len(FSQ_LEVELS) if bottleneck == "fsq" else width
        self.encoder, self.decoder = (
            part.to(device(), memory_format=torch.channels_last)
            for part in autoencoder(hiddens, width)
        )
        self.network = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.num_parameters = sum(p.numel() for p in self.network)
        self.dictionary = nn.Parameter(F.normalize(torch.randn(atoms, width), dim=1).to(device()))
        self.stages = {"vq": 1, "rvq": 4}.get(bottleneck)
        self.counts = torch.ones(atoms, device=device())
        self.sums = self.dictionary.detach().clone()
        self.optimizer = torch.optim.AdamW(self.network, lr=1e-4, fused=True)
        self.atoms_optimizer = torch.optim.Adam([self.dictionary], lr=1e-4)

    def __call__(self, images):
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1  # channels_last as it is
        latents = self.encoder(x)
        b, c, h, w = latents.shape
        signals = latents.permute(0, 2, 3, 1).reshape(-1, c)
        through, loss, learn = self._code(signals)
        loss = loss + F.mse_loss(self.decoder(through.view(b, h, w, c).permute(0, 3, 1, 2)), x)
        self.optimizer.zero_grad()
        self.atoms_optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            learn()
        return loss.item()

    def _code(self, signals):
        """Returns what the decoder gets, the bottleneck's loss, and the dictionary's update."""
        if self.bottleneck == "fsq":
            bounded, half = squash(signals)
            return (bounded + (bounded.round() - bounded).detach()) / half, 0.0, lambda: None
        fixed, atoms = signals.detach(), self.dictionary
        with torch.no_grad():
            if self.stages:
                targets, indices = self._quantize(fixed)
                approximation = fixed - targets.pop()
                learn = lambda: self._follow_means(torch.cat(targets), torch.cat(indices))  # noqa: E731
            else:
                indices, coefficients = omp(fixed, atoms, self.sparsity)
                learn = lambda: self._learn(fixed, indices, coefficients)  # noqa: E731
        if not self.stages:
            approximation = torch.einsum("nk,nkd->nd", coefficients, atoms[indices])
        loss = 0.25 * F.mse_loss(signals, approximation.detach())
        if self.bottleneck == "gradient":
            loss = loss + F.mse_loss(approximation, fixed)
        return signals + (approximation - signals).detach(), loss, learn

    def _quantize(self, residual):
        """Returns the residuals before each stage and after the last, and each stage's atoms."""
        per_stage = len(self.dictionary) // self.stages
        targets, indices = [residual], []
        for stage in range(self.stages):
            atoms = self.dictionary[stage * per_stage : (stage + 1) * per_stage]
            distances = torch.addmm(atoms.square().sum(1), targets[-1], atoms.T, alpha=-2)
            indices.append(distances.argmin(1) + stage * per_stage)
            targets.append(targets[-1] - self.dictionary[indices[-1]])
        return targets, indices

    def _follow_means(self, targets, indices, decay=0.99):
        self.counts *= decay
        self.sums *= decay
        self.counts += (1 - decay) * torch.bincount(indices, minlength=len(self.counts))
        self.sums.index_add_(0, indices, targets, alpha=1 - decay)
        self.dictionary.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])

    def _learn(self, signals, indices, coefficients):
        atoms = self.dictionary
        if self.bottleneck == "gradient":
            self.atoms_optimizer.step()
        elif self.bottleneck == "online":
            dense = signals.new_zeros(len(signals), len(atoms)).scatter_(1, indices, coefficients)
            residual = signals - dense @ atoms
            atoms += 0.1 * dense.T @ residual / (dense != 0).sum(0).clamp(min=1)[:, None]
        else:
            ksvd_sweep(signals, atoms, indices, coefficients)
        atoms.copy_(F.normalize(atoms, dim=1))
