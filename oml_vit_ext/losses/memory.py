"""A cross-batch memory: the last embeddings and labels, first in, first out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from oml_vit_ext.losses.inputs import check_pair


class FeatureMemory(nn.Module):
    """Ring buffer of the last ``size`` embeddings with their labels; it is sized by the first batch.

    The state is kept out of ``register_buffer`` on purpose: DistributedDataParallel broadcasts every registered buffer
    before every forward pass (91 MB per step for SOP's 59 551 x 384), although all processes store the same gathered
    batches. It is written to and read from ``state_dict`` all the same, as plain tensors, and moves to the device of
    the batch it meets.

    A saved memory of another size can be loaded: the most recent entries that fit are kept, oldest first.

    Args:
        size: Capacity in embeddings; 0 stores nothing.

    Source: arXiv 1912.06798.

    >>> memory = FeatureMemory(3)
    >>> memory.enqueue(torch.eye(2), torch.tensor([7, 8]))
    >>> memory.enqueue(torch.ones(2, 2), torch.tensor([9, 10]))  # takes the place of the oldest
    >>> embeddings, labels = memory.entries(torch.eye(2))
    >>> embeddings.shape, sorted(labels.tolist())
    (torch.Size([3, 2]), [8, 9, 10])
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.reset()

    def reset(self) -> None:
        """Forgets everything, the number of calls included."""
        self._features = torch.empty(0, 0)
        self._labels = torch.empty(0, dtype=torch.int64)
        self._position = 0  # where the next entry goes
        self._fill = 0
        self.n_calls = 0

    def __len__(self) -> int:
        return self._fill

    def entries(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What is stored, in no particular order.

        Args:
            like: (B, D) embeddings, e.g. the batch that is to be compared.

        Returns:
            Embeddings (len, D) on the device and in the dtype of ``like``, and labels (len,).

        Raises:
            ValueError: The stored embeddings have another dimension.
        """
        self._prepare(like)
        return self._features[: self._fill], self._labels[: self._fill]

    @torch.no_grad()
    def enqueue(self, features: Tensor, labels: Tensor) -> None:
        """Stores a batch over the oldest entries; of a batch beyond ``size`` the last rows.

        Rows that are not finite are stored as zero vectors: one overflow must not spoil all the steps to come.

        Args:
            features: (B, D) embeddings; gradients are not kept.
            labels: (B,) int64.

        Raises:
            ValueError: As many labels as embeddings are not given, or the stored embeddings have another dimension.
        """
        check_pair("features", features, "labels", labels)
        self.n_calls += 1
        if self.size == 0:
            return
        self._prepare(features)
        features, labels = features[-self.size :], labels[-self.size :]
        finite = torch.isfinite(features).all(dim=1, keepdim=True)
        features = torch.where(finite, features, 0.0)
        until_end = min(len(features), self.size - self._position)
        for rows, target in ((slice(0, until_end), self._position), (slice(until_end, None), 0)):
            n_rows = len(features[rows])
            self._features[target : target + n_rows] = features[rows]
            self._labels[target : target + n_rows] = labels[rows]
        self._position = (self._position + len(features)) % self.size
        self._fill = min(self.size, self._fill + len(features))

    def _prepare(self, like: Tensor) -> None:
        """Allocates, or brings what was loaded to the batch's device, dtype and the full size."""
        if self._fill > 0 and self._features.shape[1] != like.shape[1]:
            raise ValueError(
                f"The dimension of the batch is {like.shape[1]}, expected {self._features.shape[1]} as in the memory "
                "(its reset() forgets everything)."
            )
        if self._features.shape == (self.size, like.shape[1]):
            if self._features.device != like.device or self._features.dtype != like.dtype:
                self._features, self._labels = self._features.to(like), self._labels.to(like.device)
            return
        try:
            features = like.new_zeros(self.size, like.shape[1])
            labels = self._labels.new_zeros(self.size).to(like.device)
        except (RuntimeError, TypeError, OverflowError) as error:  # out of memory, or above all numbers of torch
            n_bytes = self.size * (like.shape[1] * like.element_size() + 8)
            raise ValueError(
                f"memory_size is {self.size}: as many embeddings of width {like.shape[1]} take {n_bytes / 1e9:,.1f} "
                f"GB, which {like.device} does not have. Expected a smaller one."
            ) from error
        features[: self._fill] = self._features[: self._fill].view(self._fill, like.shape[1])
        labels[: self._fill] = self._labels[: self._fill]
        self._features, self._labels = features, labels

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # Copies: a slice would be written to disk with all the storage behind it.
        destination[prefix + "features"] = self._features[: self._fill].clone()
        destination[prefix + "labels"] = self._labels[: self._fill].clone()
        destination[prefix + "position"] = torch.tensor(self._position)
        destination[prefix + "n_calls"] = torch.tensor(self.n_calls)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        names = [prefix + name for name in ("features", "labels", "position", "n_calls")]
        missing = [name for name in names if name not in state_dict]
        if missing:
            missing_keys.extend(missing)
            return
        features, labels, position, n_calls = (state_dict[name] for name in names)
        wrong = _what_is_wrong(features, labels, position, n_calls)
        if wrong:
            error_msgs.append(f"The memory {prefix.rstrip('.')!r} in the file holds {wrong}.")
            return
        start = int(position)
        if len(features) != self.size and start < len(features):
            # A full ring of another size: unroll it, oldest entry first.
            features, labels = torch.roll(features, -start, 0), torch.roll(labels, -start, 0)
            start = len(features)
        if len(features) > self.size:
            keep = len(features) - self.size
            features, labels = features[keep:], labels[keep:]
            start = 0
        self._features, self._labels = features.detach().clone(), labels.detach().clone()
        self._fill = len(features)
        self._position = start % self.size if self.size else 0
        self.n_calls = int(n_calls)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def _what_is_wrong(features: Any, labels: Any, position: Any, n_calls: Any) -> str:
    """What no memory saves, in words; empty if all is well."""
    if not all(isinstance(part, Tensor) for part in (features, labels, position, n_calls)):
        return "something else than tensors"
    if features.untyped_storage().nbytes() < features.nbytes:
        return f"fewer numbers than features of shape {tuple(features.shape)} have"
    if features.ndim != 2 or not features.is_floating_point() or not bool(torch.isfinite(features).all()):
        return f"features of {features.dtype} {tuple(features.shape)}, expected finite embeddings (N, D)"
    if labels.shape != features.shape[:1] or labels.dtype != torch.int64:
        return f"labels of {labels.dtype} {tuple(labels.shape)}, expected one int64 for each row of features"
    for name, value, high in (("position", position, len(features)), ("n_calls", n_calls, 2**62)):
        if value.numel() != 1 or value.dtype != torch.int64 or not 0 <= int(value) <= high:
            return f"{name} {value.tolist()!r:.50}, expected a whole number from 0 to {high}"
    return ""
