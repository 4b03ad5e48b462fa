"""What words are explained."""

from __future__ import annotations

from oml_vit_ext.pictures.report import terms


def test_what_a_table_shows_is_explained_and_nothing_else():
    explained = terms.of_metrics({"cmc": (1,), "map": (5,), "precision": ()}, with_spectrum=False)
    assert list(explained) == ["CMC@k", "MAP@k"] and "first k" in explained["CMC@k"]
    assert terms.DIMENSIONS in terms.of_metrics({"cmc": (1,)}, with_spectrum=True)


def test_curves_of_omls_metrics():
    assert terms.of_curve("OVERALL/cmc/1") == "CMC@k, of the validation."
    assert terms.of_curve("irt_loss_step") == ""
