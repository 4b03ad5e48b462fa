"""What the annotations of landmark sets say, before any image is looked at."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from helpers import miniature
from oml_vit_ext.datasets import convert
from oml_vit_ext.datasets.landmarks import gldv2_clean, gldv2_noisy, rparis6k, sfm120k
from oml_vit_ext.datasets.nc_clean import nc_clean


def _sfm(root: Path, change=lambda content: None) -> Path:
    content = miniature.sfm120k(root)
    change(content)
    (root / "retrieval-SfM-120k.pkl").write_bytes(pickle.dumps(content))
    return root


def test_an_image_of_sfm_lies_in_folders_of_its_last_six_letters(tmp_path: Path):
    listing = sfm120k(_sfm(tmp_path, lambda c: c["train"]["cids"].__setitem__(0, "0123456789abcdef")))
    assert listing.frame.path[0] == "ims/ef/cd/ab/0123456789abcdef"
    assert all((tmp_path / path).is_file() for path in listing.frame.path[1:])


def test_pairs_of_sfm_are_those_of_the_file_each_once(tmp_path: Path):
    listing = sfm120k(_sfm(tmp_path, lambda c: c["train"].update(qidxs=[3, 3, 0, 3], pidxs=[5, 4, 1, 5])))
    train, val = listing.frame.path[:6].tolist(), listing.frame.path[6:].tolist()
    expected = [(train[3], train[5], "train"), (train[3], train[4], "train"), (train[0], train[1], "train")]
    expected += [(val[0], val[2], "validation")]
    assert [tuple(row) for row in listing.pairs[["anchor", "positive", "split"]].to_numpy()] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("val"), r"has no part 'val': expected the file of SfM-120k's tuples"),
        (lambda c: c.update(train=3), r"has no part 'train'"),
        (lambda c: c["val"].pop("pidxs"), r"the part 'val' has no 'pidxs'"),
        (lambda c: c["train"]["cluster"].pop(), r"lists of the part 'train' are not of equal length"),
    ],
)
def test_other_files_than_that_of_sfm_are_named(tmp_path: Path, change, message: str):
    with pytest.raises(ValueError, match=rf"retrieval-SfM-120k\.pkl.*{message}"):
        sfm120k(_sfm(tmp_path, change))


@pytest.mark.parametrize("folder", ["train", "images", "."])
def test_images_of_gldv2_are_found_in_every_layout(tmp_path: Path, folder: str):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/train_clean.csv").write_text("landmark_id,images\n7,0123 abcd\n9,00ff\n")
    miniature.image(tmp_path / folder / "0/1/2/0123.jpg")
    frame = gldv2_clean(tmp_path).frame
    below = "" if folder == "." else f"{folder}/"
    assert frame.path.tolist() == [f"{below}0/1/2/0123.jpg", f"{below}a/b/c/abcd.jpg", f"{below}0/0/f/00ff.jpg"]
    assert frame.label.tolist() == [0, 0, 1] and frame.landmark_id.tolist() == [7, 7, 9]  # class centres count from 0


def test_ids_of_gldv2_may_have_the_ending(tmp_path: Path):
    miniature.gldv2(tmp_path)
    expected = convert("gldv2_clean", tmp_path, check=False, verbose=False).path.tolist()
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n1,0a1b2c.jpg 0a1b3d.jpg\n7,ffee00.jpg\n")
    assert convert("gldv2_clean", tmp_path, check=False, verbose=False).path.tolist() == expected


def test_wrong_tables_of_gldv2_are_named(tmp_path: Path):
    (tmp_path / "train_clean.csv").write_text("id,url,landmark_id\n0123,http://x,7\n")
    with pytest.raises(ValueError, match="has the columns id, url, landmark_id, expected landmark_id and images"):
        gldv2_clean(tmp_path)
    (tmp_path / "train.csv").write_text("id,url,landmark_id\n0123,http://x,7\n12,http://x,7\n")
    with pytest.raises(ValueError, match="lists the image '12', expected an id of at least three letters"):
        gldv2_noisy(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is empty, expected a list of landmarks and images"),
        ("landmark_id,images\n", "lists no image, expected a list of landmarks and images"),
        ("landmark_id,images\n7,0123\n8,\n", "lists no image for the landmark 8, expected at least one"),
    ],
)
def test_lists_of_gldv2_without_images_are_named(tmp_path: Path, content: str, message: str):
    (tmp_path / "train_clean.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"train_clean\.csv {message}"):
        gldv2_clean(tmp_path)
    (tmp_path / "train.csv").write_text(content.replace("images", "id").replace("7,0123", "0123,7"))
    with pytest.raises(ValueError, match=r"train\.csv (is empty|lists no image)"):
        gldv2_noisy(tmp_path)


LANDMARKS = "landmark_id,images\n7,0123 abcd\n9,00ff\n12,1111 2222\n"


@pytest.mark.parametrize("text", ["9\n7\n\n", "url,landmark_id\nhttp://x,7\nhttp://y,9\n"], ids=["lines", "csv"])
def test_landmarks_can_be_left_out(tmp_path: Path, text: str):
    (tmp_path / "train_clean.csv").write_text(LANDMARKS)
    (tmp_path / "overlap.txt").write_text(text)
    with pytest.warns(UserWarning, match="2 landmarks of .*overlap.txt are left out, with 3 images.$"):
        listing = gldv2_clean(tmp_path, exclude_labels=tmp_path / "overlap.txt")
    assert listing.frame.landmark_id.tolist() == [12, 12] and listing.frame.label.tolist() == [0, 0]
    assert (listing.counts.train_images, listing.counts.train_labels) == (1_580_467, 81_311)


def test_lists_of_landmarks_that_do_not_fit_are_named(tmp_path: Path):
    (tmp_path / "train_clean.csv").write_text(LANDMARKS)
    file = tmp_path / "overlap.txt"
    file.write_text("7\n100\n101\n")
    with pytest.warns(UserWarning, match="2 other landmarks of it are not in train_clean.csv: 100; 101"):
        gldv2_clean(tmp_path, exclude_labels=file)
    for text, message in (
        ("100\n", "lists 1 landmark, and .*train_clean.csv none of them"),
        ("Eiffel Tower\n", "has the line 'Eiffel Tower', expected the id of a landmark"),
        ("", "has no line, expected the id of a landmark"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            gldv2_clean(tmp_path, exclude_labels=file)
    file.write_text("7\n9\n12\n")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="lists every landmark of"):
        gldv2_clean(tmp_path, exclude_labels=file)
    with pytest.raises(FileNotFoundError, match=r"exclude_labels is .*none\.txt': there is no such file"):
        gldv2_clean(tmp_path, exclude_labels=tmp_path / "none.txt")


def test_paths_of_nc_clean_may_hold_spaces(tmp_path: Path):
    miniature.nc_clean(tmp_path)
    (tmp_path / "annotations/annotation_clean_val.txt").write_text("\neiffel/from below 3.jpg  eiffel\n\n")
    listing = nc_clean(tmp_path)
    assert listing.frame.path.tolist() == ["eiffel/1.jpg", "colosseum/2.jpg", "eiffel/from below 3.jpg"]
    assert listing.frame.label.tolist() == [1, 0, 1] and set(listing.frame.split) == {"train"}


def test_an_image_of_two_landmarks_counts_for_the_query_that_comes_first(tmp_path: Path):
    content = miniature.revisited(tmp_path, "rparis6k")
    content["gnd"][0].update(easy=[0], hard=[4], junk=[3])
    content["gnd"][1].update(easy=[1], hard=[])
    content["gnd"][2].update(easy=[4, 0], hard=[6])
    (tmp_path / "rparis6k/gnd_rparis6k.pkl").write_bytes(pickle.dumps(content))
    frame = rparis6k(tmp_path / "rparis6k").frame
    queries, gallery = frame[frame.is_query.astype(bool)], frame[frame.is_gallery.astype(bool)]
    assert queries.label.tolist() == [0, 0, 1]
    assert gallery.label.tolist() == [0, 0, 4, 5, 0, 7, 1, *range(9, 14)], "all others, junk included, are alone"
    assert gallery[["x_1", "x_2", "y_1", "y_2"]].isna().all(axis=None) and queries.x_2.tolist() == [10, 12, 11]
