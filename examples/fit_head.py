"""Fits the head of ``extractor_with_head`` on the training images of a data set: ``oml-vit-ext fit-head``.

python examples/fit_head.py irt/validate_photos irt/variant=irt_o --to head.safetensors
python examples/validate_extractor.py --config-name irt/validate_photos irt/variant=head head=head.safetensors
"""

import typer

from oml_vit_ext.commands.fit_head import fit_head

if __name__ == "__main__":
    typer.run(fit_head)
