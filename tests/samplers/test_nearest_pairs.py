"""Pairs of near images and their rivals: against a plain re-computation, OML's miner, and in OML's pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oml.miners.pairs import PairsMiner

from helpers.trainings import content, reranker_config, train
from oml_vit_ext.samplers import NearestPairsSampler

LABELS = np.repeat([7, 3, 11, 5, 2, 13], 4)
EMBEDDINGS = np.random.default_rng(0).standard_normal((len(LABELS), 6)).astype(np.float32)
N_ANCHORS, N_EPOCHS = 3, 40


def sampler(labels=LABELS, embeddings=EMBEDDINGS, **changes) -> NearestPairsSampler:
    made = NearestPairsSampler(labels, **{"n_anchors": N_ANCHORS, "nearest": 2, **changes})
    made.use_embeddings(embeddings)
    return made


def of_epochs(made: NearestPairsSampler, n_epochs: int = N_EPOCHS) -> np.ndarray:
    """All batches of some epochs: (batches, anchors, 4)."""
    batches = [batch for _ in range(n_epochs) for batch in made]
    assert len(batches) == n_epochs * len(made)
    return np.array(batches).reshape(len(batches), made.n_anchors, 4)


def nearest_first(row: int, others: list[int]) -> list[int]:
    return sorted(others, key=lambda other: float(np.linalg.norm(EMBEDDINGS[row] - EMBEDDINGS[other])))


def test_partners_and_rivals_are_among_the_nearest_that_are_left():
    drawn_partners, drawn_rivals = set(), set()
    for batch in of_epochs(sampler()):
        assert len(set(LABELS[batch[:, [0, 2]]].ravel())) == 2 * N_ANCHORS, "each pair is of a label of its own"
        assert (LABELS[batch[:, 0]] == LABELS[batch[:, 1]]).all() and (LABELS[batch[:, 2]] == LABELS[batch[:, 3]]).all()
        taken = set(LABELS[batch[:, 0]])
        for anchor, partner, rival, partner_of_rival in batch.tolist():
            for row, other in ((anchor, partner), (rival, partner_of_rival)):
                same = [i for i in range(len(LABELS)) if LABELS[i] == LABELS[row] and i != row]
                place = nearest_first(row, same).index(other)
                assert place < 2
                drawn_partners.add(place)
            free = [i for i in range(len(LABELS)) if LABELS[i] not in taken]
            place = nearest_first(anchor, free).index(rival)
            assert place < 2
            drawn_rivals.add(place)
            taken.add(LABELS[rival])
    assert drawn_partners == drawn_rivals == {0, 1}


def test_each_label_gives_one_anchor_an_epoch_and_all_its_images_in_the_end():
    made = sampler()
    assert len(made) == 2 and made.batch_size == 12
    anchors = of_epochs(made)[:, :, 0].reshape(N_EPOCHS, -1)
    assert all(sorted(LABELS[of_epoch]) == sorted(set(LABELS)) for of_epoch in anchors)
    assert set(anchors.ravel()) == set(range(len(LABELS)))


def test_hard_mining_of_oml_takes_the_pairs_as_they_are_meant():
    for batch in of_epochs(sampler(n_anchors=2), n_epochs=5):
        rows = batch.ravel()
        first, second, is_negative = PairsMiner(hard_mining=True).sample(
            torch.from_numpy(EMBEDDINGS[rows]), LABELS[rows].tolist()
        )
        positives = {tuple(sorted(pair)) for pair in zip(first[~is_negative], second[~is_negative], strict=True)}
        assert {(int(a), int(b)) for a, b in positives} == {(0, 1), (2, 3), (4, 5), (6, 7)}
        for anchor, _, rival, _ in rows.reshape(-1, 4):
            mined = [
                int(rows[b if rows[a] == anchor else a])
                for a, b in zip(first[is_negative], second[is_negative], strict=True)
                if anchor in (rows[a], rows[b])
            ]
            at_most = np.linalg.norm(EMBEDDINGS[anchor] - EMBEDDINGS[rival])
            assert min(np.linalg.norm(EMBEDDINGS[anchor] - EMBEDDINGS[row]) for row in mined) <= at_most


def test_draws_depend_on_seed_epoch_and_embeddings_alone():
    np.random.seed(0)
    first, again = sampler(), sampler()
    np.random.seed(1)
    epochs = [list(first) for _ in range(3)]
    assert epochs == [list(again) for _ in range(3)]
    assert epochs[0] != epochs[1]
    assert list(sampler(seed=1)) != epochs[0]
    assert list(sampler(embeddings=EMBEDDINGS[::-1].copy())) != epochs[0]
    again.follow_epochs(lambda: 1)
    assert list(again) == epochs[1] == list(again)


def test_a_label_of_one_image_takes_no_part():
    labels = np.array([*LABELS, 99])
    made = sampler(labels, np.vstack([EMBEDDINGS, EMBEDDINGS[:1]]), nearest=1)
    assert len(LABELS) not in of_epochs(made)


def test_embeddings_as_a_tensor_of_a_model():
    given = torch.from_numpy(EMBEDDINGS).double().requires_grad_()
    assert list(sampler(embeddings=given)) == list(sampler())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"n_anchors": 0}, "n_anchors is 0"),
        ({"nearest": 1.5}, "nearest is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"n_anchors": 4}, r"n_anchors is 4, but the training set has 6 labels of two or more images: expected .* 8"),
        ({"labels": ["a", "b"]}, "labels are"),
    ],
)
def test_arguments_that_cannot_be_right(args, said):
    with pytest.raises(ValueError, match=said):
        NearestPairsSampler(**{"labels": LABELS, "n_anchors": 3, **args})


@pytest.mark.parametrize(
    ("embeddings", "said"),
    [
        (EMBEDDINGS[1:], r"24 images is \(23, 6\)"),
        (EMBEDDINGS[:, 0], r"24 images is \(24,\)"),
        (np.where(EMBEDDINGS > 2, np.nan, EMBEDDINGS), "NaN"),
    ],
)
def test_embeddings_that_do_not_belong_to_the_images(embeddings, said):
    with pytest.raises(ValueError, match=said):
        sampler(embeddings=embeddings)


def test_without_embeddings_it_says_where_they_come_from():
    with pytest.raises(RuntimeError, match="use_embeddings"):
        next(iter(NearestPairsSampler(LABELS, n_anchors=3)))


def test_in_training_of_re_rankers(demo_slice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = []
    monkeypatch.setattr(NearestPairsSampler, "use_embeddings", watched(given, NearestPairsSampler.use_embeddings))
    cfg = reranker_config(demo_slice, sampler={"name": "nearest_pairs", "args": {"n_anchors": 2}}, max_epochs=1)
    last = train(cfg, tmp_path / "run")
    (embeddings,) = given
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)))
    assert content(last)["global_step"] > 1


def watched(given: list[torch.Tensor], use_embeddings):
    def use(self: NearestPairsSampler, embeddings: torch.Tensor) -> None:
        given.append(embeddings)
        use_embeddings(self, embeddings)

    return use
