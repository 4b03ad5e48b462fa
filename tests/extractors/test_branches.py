"""The branches of DToP, against the formulas token by token."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from oml_vit_ext.extractors.branches import GlobalBranch, LocalBranch

B, K, D, N, GRID = 2, 3, 4, 5, (3, 2)


class Shift(nn.Module):
    """Stands for ELM: depends on the place in the map, so that mixed-up rows and columns show."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.roll((1, 0), dims=(2, 3)) * torch.arange(GRID[1])


def test_global_branch():
    branch = GlobalBranch(K, D, N)
    layers = [torch.randn(B, D) for _ in range(K)]
    for i in range(B):
        side_by_side = [float(value) for layer in layers for value in layer[i]]
        expected = branch.fc.weight @ torch.tensor(side_by_side) + branch.fc.bias
        torch.testing.assert_close(branch(layers)[i], expected)


@pytest.mark.parametrize("locality", [None, Shift()], ids=["plain", "with locality"])
def test_local_branch(locality: nn.Module | None):
    branch = LocalBranch(K, D, 6, N, locality)
    layers = [torch.randn(B, GRID[0] * GRID[1], D) for _ in range(K)]
    weight = branch.conv.weight[:, :, 0, 0]
    for i in range(B):
        maps = torch.zeros(6, *GRID)
        for row in range(GRID[0]):
            for column in range(GRID[1]):
                token = torch.cat([layer[i, row * GRID[1] + column] for layer in layers])
                maps[:, row, column] = weight @ token + branch.conv.bias
        total = torch.zeros(6)
        for row in range(GRID[0]):
            for column in range(GRID[1]):
                total += maps[:, row, column]
                if locality is not None:
                    total += maps[:, row - 1, column] * column
        expected = branch.fc.weight @ (total / (GRID[0] * GRID[1])) + branch.fc.bias
        torch.testing.assert_close(branch(layers, GRID)[i], expected)
