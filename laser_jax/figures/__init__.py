"""Figures, drawn from host arrays."""

from laser_jax.figures.sheets import atom_sheet, reconstruction_figure, reconstruction_grid

__all__ = ["atom_sheet", "reconstruction_figure", "reconstruction_grid"]
