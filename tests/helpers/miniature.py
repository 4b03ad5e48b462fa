"""Data sets of a few tiny images in the exact layouts of the real ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (12, 8)  # px, width and height


def image(file: Path, size: tuple[int, int] = SIZE) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(np.random.default_rng(len(str(file))).integers(0, 255, 3))).save(file, format="JPEG")


def sop(root: Path) -> None:
    header = "image_id class_id super_class_id path\n"
    train = ["1 1 1 bicycle_final/1_0.JPG", "2 1 1 bicycle_final/1_1.JPG", "3 2 2 chair_final/2_0.JPG"]
    test = ["4 3 1 bicycle_final/3_0.JPG", "5 3 1 bicycle_final/3_1.JPG", "6 4 2 chair_final/4_0.JPG"]
    root.mkdir(parents=True, exist_ok=True)
    for name, lines in (("Ebay_train.txt", train), ("Ebay_test.txt", test)):
        (root / name).write_text(header + "\n".join(lines) + "\n")
        for line in lines:
            image(root / line.split()[-1])


def cub(root: Path) -> None:
    names = ["001.Albatross/a.jpg", "001.Albatross/b.jpg", "100.Pelican/c.jpg", "101.Pelican/d.jpg", "200.Throat/e.jpg"]
    labels = [1, 1, 100, 101, 200]
    root.mkdir(parents=True, exist_ok=True)
    tables = {
        "images.txt": names,
        "image_class_labels.txt": labels,
        "train_test_split.txt": [1, 0, 1, 0, 1],
        "bounding_boxes.txt": [
            "1.0 2.0 5.0 3.0",
            "0.0 0.0 12.0 8.0",
            "2.7 1.0 20.0 4.0",
            "1.0 1.0 2.0 2.0",
            "3.0 3.0 4.0 4.0",
        ],
    }
    for file, values in tables.items():
        (root / file).write_text("".join(f"{i} {value}\n" for i, value in enumerate(values, 1)))
    for name in names:
        image(root / "images" / name)


def inshop(root: Path, *, as_downloaded: bool = False) -> None:
    rows = [
        ("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002", "train"),
        ("img/WOMEN/Dresses/id_00000002/02_2_side.jpg", "id_00000002", "train"),
        ("img/MEN/Denim/id_00000003/01_1_front.jpg", "id_00000003", "train"),
        ("img/MEN/Denim/id_00000007/01_1_front.jpg", "id_00000007", "query"),
        ("img/MEN/Denim/id_00000007/01_2_side.jpg", "id_00000007", "gallery"),
        ("img/MEN/Denim/id_00000007/01_3_back.jpg", "id_00000007", "gallery"),
    ]
    evaluation, boxes, images = (
        (root / "Eval", root / "Anno", root / "Img/img") if as_downloaded else (root, root, root / "img_highres")
    )
    for folder in (evaluation, boxes):
        folder.mkdir(parents=True, exist_ok=True)
    (evaluation / "list_eval_partition.txt").write_text(
        f"{len(rows)}\nimage_name item_id evaluation_status\n"
        + "".join(f"{name}      {item} {status}\n" for name, item, status in rows)
    )
    (boxes / "list_bbox_inshop.txt").write_text(
        f"{len(rows)}\nimage_name clothes_type pose_type x_1 y_1 x_2 y_2\n"
        + "".join(f"{name}  1  2  021 085 235 192\n" for name, _, _ in rows)
    )
    for name, _, _ in rows:  # the small images are squares, which the boxes are of
        image(images / name.removeprefix("img/"), size=(256, 256) if as_downloaded else SIZE)


_CARS = [(1, 0), (1, 1), (98, 0), (99, 0), (196, 1)]  # class, test


def cars(root: Path) -> None:
    kinds = [(n, object if n == "relative_im_path" else "u1") for n in (
        "relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")]  # fmt: skip
    rows = np.empty((1, len(_CARS)), dtype=[(n, object) for n, _ in kinds])
    for i, (label, test) in enumerate(_CARS):
        name = f"car_ims/{i + 1:06}.jpg"
        rows[0, i] = (name, 1, 2, 9, 7, label, test)
        image(root / name)
    savemat(root / "cars_annos.mat", {"annotations": rows})


def cars_devkit(root: Path) -> None:
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    (root / "devkit").mkdir(parents=True)
    for test, file, folder in (
        (0, "devkit/cars_train_annos.mat", "cars_train"),
        (1, "cars_test_annos_withlabels.mat", "cars_test"),
    ):
        labels = [label for label, is_test in _CARS if is_test == test]
        rows = np.empty((1, len(labels)), dtype=[(n, object) for n in fields])
        for i, label in enumerate(labels):
            rows[0, i] = (1, 2, 9, 7, label, f"{i + 1:05}.jpg")
            image(root / folder / f"{i + 1:05}.jpg")
        savemat(root / file, {"annotations": rows})


def sfm120k(root: Path, *, own_numbers: bool = False) -> dict:
    """Six training images of two models and three validation images of one."""
    train = [f"{i:02}aabbcc{i:02}dd{i:02}" for i in range(6)]
    val = [f"v{i}aabbccddee{i}f" for i in range(3)]
    content = {
        "train": {"cids": train, "cluster": [7, 7, 7, 9, 9, 9], "qidxs": [0, 0, 3], "pidxs": [1, 2, 5]},
        "val": {"cids": val, "cluster": [7 if own_numbers else 11] * 3, "qidxs": [0], "pidxs": np.array([2])},
    }
    for cid in train + val:
        image(root / "ims" / cid[-2:] / cid[-4:-2] / cid[-6:-4] / cid)
    (root / "retrieval-SfM-120k.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return content


def gldv2(root: Path) -> None:
    ids = ["0a1b2c", "0a1b3d", "ffee00", "17baab"]
    for name in ids:
        image(root / "train" / name[0] / name[1] / name[2] / f"{name}.jpg")
    (root / "train_clean.csv").write_text(f"landmark_id,images\n1,{ids[0]} {ids[1]}\n7,{ids[2]}\n")
    rows = zip(ids, [1, 1, 7, 203093], strict=True)
    (root / "train.csv").write_text("id,url,landmark_id\n" + "".join(f"{i},http://x/{i}.jpg,{n}\n" for i, n in rows))


def nc_clean(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    lists = {
        "train": [("eiffel/1.jpg", "eiffel"), ("colosseum/2.jpg", "colosseum")],
        "val": [("eiffel/3.jpg", "eiffel")],
    }
    for part, lines in lists.items():
        (root / f"annotations/annotation_clean_{part}.txt").write_text("".join(f"{p} {n}\n" for p, n in lines))
        for path, _ in lines:
            image(root / path)


def revisited(root: Path, name: str = "roxford5k", n_database: int = 12, sizes: tuple = (SIZE,)) -> dict:
    """Three queries of two landmarks in the official layout; returns the content of the ground truth."""
    rng = np.random.default_rng(0)
    database = [f"img_{i:03}" for i in range(n_database)]
    queries = ["all_souls_000001", "all_souls_000002", "radcliffe_camera_000003"]
    gnd = [
        {"easy": [0, 1], "hard": [2], "junk": [3], "bbx": [1.4, 0.6, 9.5, 7.2]},
        {
            "easy": np.array([1]),
            "hard": np.array([0, 2]),
            "junk": np.array([], dtype=int),
            "bbx": [0.0, 0.0, 12.0, 8.0],
        },
        {"easy": [], "hard": [5, 6], "junk": [0], "bbx": [2.0, 1.0, 11.0, 8.0]},
    ]
    for i, name_of_image in enumerate(database + queries):
        file = root / name / "jpg" / f"{name_of_image}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        width, height = sizes[i % len(sizes)]
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(file)
    content = {"imlist": database, "qimlist": queries, "gnd": gnd}
    (root / name / f"gnd_{name}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return content


def revisited_with_distractors(root: Path) -> Path:
    """Revisited Oxford in images of three sizes, and seven distractors."""
    sizes = ((40, 32), (32, 40), (48, 48))
    revisited(root, sizes=sizes)
    for i in range(7):
        image(root / f"revisitop1m/jpg/{i % 2}/{i}.jpg", size=sizes[i % 3])
    return root
