"""Results made without OML's checks are those that its constructor makes."""

from __future__ import annotations

import sys

import pytest
import torch
from oml.retrieval import retrieval_results

from oml_vit_ext.retrieval.retrieve import oml_results

DISTANCES = [torch.tensor([0.1, 0.2]), torch.tensor([0.3])]
IDS = [torch.tensor([2, 0]), torch.tensor([1])]
GT = [torch.tensor([0]), torch.tensor([], dtype=torch.long)]


@pytest.mark.parametrize("gt_ids", [None, GT])
@pytest.mark.filterwarnings("ignore:Some of the queries")
def test_they_hold_what_the_oml_constructor_puts_there(gt_ids):
    made = vars(oml_results(DISTANCES, IDS, gt_ids))
    assert made == vars(retrieval_results.RetrievalResults(DISTANCES, IDS, gt_ids=gt_ids))


def test_queries_without_ground_truth_are_warned_about():
    with pytest.warns(UserWarning, match="don't have available gts"):
        oml_results(DISTANCES, IDS, GT)


def test_an_oml_with_other_fields_gets_its_own_constructor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[oml_results.__module__], "_FIELDS", {"_something_else"})
    with pytest.raises(RuntimeError, match="must be sorted"):
        oml_results([torch.tensor([2.0, 1.0])], [torch.tensor([0, 1])], None)
