"""OML before and after ``import oml_vit_ext``: every public name is what it was, but for those that we list."""

from __future__ import annotations

import json
import subprocess
import sys

REGISTRIES = ["losses", "samplers", "models", "miners", "transforms", "optimizers", "schedulers"]
REGISTRIES += ["postprocessors", "loggers"]
# What each change of docs/oml_changes.md replaces.
CHANGED = {
    *(f"oml.registry.{name}.dictconfig_to_dict" for name in REGISTRIES),
    "oml.registry.losses.get_criterion",
    "oml.registry.samplers.get_sampler",
    "oml.registry.models.get_extractor",
    "oml.registry.models.get_pairwise_model",
    "oml.registry.miners.get_miner",
    "oml.registry.transforms.get_transforms",
    "oml.registry.transforms.get_transforms_for_pretrained",
    "oml.registry.optimizers.get_optimizer",
    "oml.registry.schedulers.get_scheduler",
    "oml.registry.postprocessors.get_postprocessor",
    "oml.registry.loggers.get_logger",
    "oml.lightning.modules.extractor.ExtractorModule.on_train_epoch_start",
    "oml.lightning.modules.extractor.ExtractorModuleDDP.on_train_epoch_start",
    "oml.lightning.modules.extractor.ExtractorModuleDDP.train_dataloader",
    "oml.lightning.modules.pairwise_postprocessing.PairwiseModule.on_fit_start",
    "oml.lightning.modules.pairwise_postprocessing.PairwiseModuleDDP.on_fit_start",
    "oml.lightning.modules.pairwise_postprocessing.PairwiseModule.on_train_epoch_start",
    "oml.lightning.modules.pairwise_postprocessing.PairwiseModuleDDP.on_train_epoch_start",
    "oml.lightning.pipelines.train.parse_engine_params_from_config",
    "oml.lightning.pipelines.train_postprocessor.parse_engine_params_from_config",
    "oml.lightning.pipelines.train_postprocessor.get_loaders_with_embeddings",
    "oml.lightning.pipelines.train.dictconfig_to_dict",
    "oml.lightning.pipelines.validate.dictconfig_to_dict",
    "oml.lightning.pipelines.train.parse_ckpt_callback_from_config",
    "oml.lightning.pipelines.train_postprocessor.dictconfig_to_dict",
    "oml.lightning.pipelines.train_postprocessor.parse_ckpt_callback_from_config",
    "oml.lightning.pipelines.predict.get_im_reader_for_transforms",
    "oml.datasets.images.get_im_reader_for_transforms",
    "oml.datasets.images.ImageBaseDataset.visualize",
    "oml.metrics.embeddings.EmbeddingMetrics._compute_retrieval_results",
}

WALK = """
import importlib, inspect, json, pkgutil, sys, warnings
warnings.filterwarnings("ignore")
import oml

def names():
    found, registries = {}, {}
    for info in pkgutil.walk_packages(oml.__path__, "oml.", onerror=lambda _: None):
        try:
            module = importlib.import_module(info.name)
        except Exception:
            continue
        for name, value in vars(module).items():
            if name.startswith("__"):
                continue
            full = f"{info.name}.{name}"
            if isinstance(value, dict) and name.endswith("REGISTRY"):
                registries[full] = {key: id(entry) for key, entry in value.items()}
            elif inspect.isclass(value) and value.__module__.startswith("oml."):
                home = f"{value.__module__}.{value.__name__}"
                found[home] = id(value)
                for base in value.__mro__:
                    if base.__module__.startswith(("oml.", "pytorch_lightning")):
                        for member in vars(base):
                            if not member.startswith("__"):
                                found[f"{home}.{member}"] = id(inspect.getattr_static(value, member))
            else:
                found[full] = id(value)
    return found, registries

names()  # imports everything, which adds modules as names
before, registries_before = names()
keep = dict(sys.modules)  # ids stay those of living objects
import oml_vit_ext
after, registries_after = names()
print(json.dumps({
    "n": len(before),
    "changed": sorted(name for name in before if before[name] != after.get(name)),
    "new": sorted(set(after) - set(before)),
    "lost": [f"{r}[{k}]" for r, old in registries_before.items() for k in old if registries_after[r].get(k) != old[k]],
}))
"""


def test_nothing_of_oml_is_changed_but_what_we_list():
    done = subprocess.run([sys.executable, "-c", WALK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["n"] > 1000, "OML's modules could not be walked"
    assert found["lost"] == [] and found["new"] == []
    changed = set(found["changed"])
    assert (changed - CHANGED, CHANGED - changed) == (set(), set())
