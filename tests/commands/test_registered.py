"""All registries of OML."""

from __future__ import annotations

from oml_vit_ext.commands.registered import registries


def test_every_kind_that_configs_name_is_there_with_ours_in_it():
    import oml_vit_ext

    oml_vit_ext.register()
    found = registries()
    ours = {
        "extractor": "irt",
        "criterion": "pml",
        "sampler": "hard_tuples",
        "transforms": "augs_dtop",
        "pairwise_model": "stir",
        "postprocessor": "stir_reranker",
    }
    assert all(name in found[kind] for kind, name in ours.items())
    assert {"optimizer", "scheduler", "miner", "logger"} <= set(found)
