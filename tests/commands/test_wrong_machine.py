"""What a config asks of the machine and of files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.configs import composed
from oml_vit_ext.commands.wrong_machine import expected_memory, wrong_machine


def _found(*overrides: str) -> dict[str, tuple[str, bool]]:
    return {
        m.key: (m.sentence, m.is_error)
        for m in wrong_machine(composed("irt/train_photos", "pretrained=null", *overrides))
    }


def test_the_config_of_photos_asks_for_nothing_that_is_not_there():
    assert not _found()


@pytest.mark.parametrize(
    ("override", "key", "said", "is_error"),
    [
        ("arch=vit_smal_patch14_dinov2", "extractor.args.arch", "did you mean 'vit_small_patch14_dinov2'", True),
        ("pretrained=gone.pth", "extractor.args.weights", "there is no such file", True),
        ("images.crop=85", "images", "enlarged to 98 px. Sizes that fit: 84 px", False),
        ("precision=16-mixed", "precision", "slower than 32", False),
    ],
)
def test_what_cannot_be_is_told(override: str, key: str, said: str, is_error: bool):
    sentence, error = _found(override)[key]
    assert said in sentence and error == is_error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to be asked for")
def test_a_gpu_that_is_not_there_is_told():
    assert "say accelerator=cpu" in _found("accelerator=gpu")["accelerator"][0]


def test_memory_grows_with_the_batch_and_the_photos(tmp_path: Path):
    def gigabytes(*overrides: str) -> float:
        sentence = expected_memory(composed("irt/train_photos", *overrides))
        assert sentence is not None
        return float(sentence.split("about ")[1].split(" GB")[0])

    small, more = gigabytes(), gigabytes("sampler.args.n_labels=32")
    assert small < more < gigabytes("sampler.args.n_labels=32", "images.train_resize=256", "images.crop=224")
    assert expected_memory(composed("irt/validate_photos", "checkpoint=x")) is None
