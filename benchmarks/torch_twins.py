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


class TrainStep:
    """A training step of the same network in PyTorch, on the device that JAX computes on.

    Called with a uint8 tensor of images `(b, H, W, 3)` it returns the loss.

    `bottleneck` is "vq" (gradient codebook), or how the dictionary learns: "gradient", "online"
    (residual update) or "ksvd" (a sweep every step).
    """

    def __init__(self, bottleneck, *, hiddens, atoms=512, width=64, sparsity=8):
        self.bottleneck, self.sparsity = bottleneck, sparsity
        self.encoder, self.decoder = (part.to(device()) for part in autoencoder(hiddens, width))
        network = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.num_parameters = sum(p.numel() for p in network)
        self.dictionary = nn.Parameter(F.normalize(torch.randn(atoms, width), dim=1).to(device()))
        self.network = network
        self.optimizer = torch.optim.AdamW(network, lr=1e-4)
        self.atoms_optimizer = torch.optim.Adam([self.dictionary], lr=1e-4)

    def __call__(self, images):
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = self.encoder(x)
        signals = latents.permute(0, 2, 3, 1).reshape(-1, self.dictionary.shape[1])
        with torch.no_grad():
            if self.bottleneck == "vq":
                indices = torch.cdist(signals, self.dictionary).argmin(1)[:, None]
                coefficients = torch.ones_like(indices, dtype=signals.dtype)
            else:
                indices, coefficients = omp(signals, self.dictionary, self.sparsity)
        approximation = torch.einsum("nk,nkd->nd", coefficients, self.dictionary[indices])
        loss = 0.25 * F.mse_loss(signals, approximation.detach())
        if self.bottleneck in ("vq", "gradient"):
            loss = loss + F.mse_loss(approximation, signals.detach())
        through = signals + (approximation - signals).detach()
        b, c, h, w = latents.shape
        loss = loss + F.mse_loss(self.decoder(through.view(b, h, w, c).permute(0, 3, 1, 2)), x)
        self.optimizer.zero_grad()
        self.atoms_optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self._learn(signals.detach(), indices, coefficients)
        return loss.item()

    def _learn(self, signals, indices, coefficients):
        atoms = self.dictionary
        if self.bottleneck in ("vq", "gradient"):
            self.atoms_optimizer.step()
        elif self.bottleneck == "online":
            dense = signals.new_zeros(len(signals), len(atoms)).scatter_(1, indices, coefficients)
            residual = signals - dense @ atoms
            atoms += 0.1 * dense.T @ residual / (dense != 0).sum(0).clamp(min=1)[:, None]
        else:
            ksvd_sweep(signals, atoms, indices, coefficients)
        if self.bottleneck != "vq":
            atoms.copy_(F.normalize(atoms, dim=1))
