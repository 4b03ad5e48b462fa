"""All commands together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command_line import fails, succeeds
from oml_vit_ext.commands.main import COMMANDS, app

NAMES = [command.name for command in app.registered_commands]


def test_the_commands_are_those_of_the_table_in_order():
    assert [name for name in COMMANDS if name in NAMES] == NAMES
    assert {"info", "check", "convert", "train", "index", "query", "sync", "demo"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_command_explains_itself_with_an_example(name: str):
    assert f"oml-vit-ext {name}" in succeeds(name, "--help")


def test_examples_can_be_copied():
    told = succeeds("index", "--help")
    assert (
        "oml-vit-ext index photos --to shards/shard_0_of_8 --shard 0/8 --config-name irt/predict_sop checkpoint="
        in told
    )
    assert "\b" not in told and "add what is new there." in told


def test_help_imports_neither_torch_nor_oml():
    code = (
        "import sys\nfrom oml_vit_ext.commands.main import app\n"
        "try:\n    app(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "print('heavy', sorted({'torch', 'oml', 'numpy', 'hydra', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy []" in done.stdout and "irt/train_photos" in done.stdout


def test_a_wrong_command_or_option_is_a_matter_of_usage():
    assert "No such command" in fails("trian", code=2) and "--topp" in fails("query", "a.jpg", "--topp", "3", code=2)


def test_the_module_is_the_same_as_the_script():
    done = subprocess.run([sys.executable, "-m", "oml_vit_ext", "-h"], capture_output=True, text=True, check=True)
    assert "train-reranker" in done.stdout and "Exit codes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["convert", "folders", "~/photos"], "photos"),
        (["check", "irt/train_photos", "dataset_root=~/photos"], "photos"),
        (["check", "~/mine.yaml"], "from_file/photos"),
        (["validate-reranker", "stir/validate_reranker_sop", "dataset_root=~/photos"], "photos"),
        (["validate", "~/run"], "run"),
        (["report", "~/run"], "run"),
        (["report", "{here}/run", "--checkpoint", "~/other.ckpt"], "other.ckpt"),
        (["index", "~/photos", "--to", "{here}/index"], "photos"),
        (["query", "cat.jpg", "--index=~/index"], "index"),
        (["sync", "--index", "~/index"], "index"),
        (["app", "~/index"], "index"),
        (["info", "--weights", "~/start.pth"], "start.pth"),
    ],
)
def test_the_users_folder_wherever_a_path_is_typed(
    arguments: list[str], named: str, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = in_tmp_path / "me"
    monkeypatch.setenv("HOME", str(home))
    (home / "nothing").mkdir(parents=True)
    (home / "mine.yaml").write_text("defaults: [irt/train_photos, _self_]\ndataset_root: ~/from_file/photos\n")
    (in_tmp_path / "run/.hydra").mkdir(parents=True)
    (in_tmp_path / "run/.hydra/config.yaml").write_text("optimizer: {}\n")
    (in_tmp_path / "photos").mkdir()
    printed = fails(*[argument.format(here=in_tmp_path) for argument in arguments])
    assert str(home / named) in printed.replace("\n", "") and "~" not in printed, printed
