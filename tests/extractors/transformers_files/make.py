"""Makes the files beside it: small untrained models of the transformers library, as it saves them, and what they give.

  pip install transformers && python tests/extractors/transformers_files/make.py

``expected.safetensors`` holds a batch of images and, by the name of the file, the embedding that the model makes of it:
the CLS token, or what the model pools by itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
MLP = {"intermediate_size": 32}
MODELS = {
    "vit": ("ViTModel", "ViTConfig", {**SIZES, **MLP}),
    "vit_classifier": ("ViTForImageClassification", "ViTConfig", {**SIZES, **MLP}),
    "deit": ("DeiTModel", "DeiTConfig", {**SIZES, **MLP}),
    "dinov2": ("Dinov2Model", "Dinov2Config", SIZES),
    "dinov2_swiglu": ("Dinov2Model", "Dinov2Config", {**SIZES, "use_swiglu_ffn": True}),
    "dinov2_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", {**SIZES, "num_register_tokens": 4}),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", {**SIZES, **MLP, "num_register_tokens": 4}),
    "dinov3_gated": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**SIZES, **MLP, "num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
    ),
    "clip": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", {**SIZES, **MLP, "projection_dim": 8}),
    # Their activation is GELU by tanh, timm's for this arch the exact one.
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", {**SIZES, **MLP, "hidden_act": "gelu"}),
}


def main() -> None:
    import transformers  # only here: the tests need nothing of it but the files

    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    expected = {"images": images}
    for name, (model_name, config_name, arguments) in MODELS.items():
        model = getattr(transformers, model_name)(getattr(transformers, config_name)(**arguments)).eval()
        with torch.no_grad():
            for (
                parameter
            ) in model.parameters():  # norms, biases and layer scales start at 0 and 1, which hides mistakes
                parameter.add_(torch.randn_like(parameter) * 0.2)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            (Path(folder) / "model.safetensors").replace(HERE / f"{name}.safetensors")
        inner = next((getattr(model, part) for part in ("vit", "vision_model") if hasattr(model, part)), model)
        with torch.no_grad():
            expected[name] = embedding(inner, images)
    save_file(expected, HERE / "expected.safetensors")


def embedding(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The CLS token behind the last norm; of SigLIP, which has none, its pooling."""
    given = model(images)
    pools_itself = type(model).__name__.startswith(("CLIP", "Siglip"))
    return (given.pooler_output if pools_itself else given.last_hidden_state[:, 0]).contiguous()


if __name__ == "__main__":
    main()
