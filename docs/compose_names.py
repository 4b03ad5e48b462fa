"""Writes a page into ``docs/names/`` for each registered name that has none: headings, the class, places for words.

A test fails while a name has no page, and while a page has a place without words.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from oml_vit_ext import registration

NAMES = Path(__file__).parent / "names"
UNWRITTEN = "TO BE WRITTEN"
KEYS = {
    "extractors": "extractor",
    "losses": "criterion",
    "optimizers": "optimizer",
    "pairwise_models": "pairwise_model",
    "postprocessors": "postprocessor",
    "samplers": "sampler",
    "transforms": "transforms_train",
}


def registered() -> dict[str, Any]:
    """Folder and name, ``losses/irt``, to class or function, of everything that is registered."""
    found = {}
    for registry, folder in ((name, name.lower()) for name in dir(registration) if name.lower() in KEYS):
        found.update({f"{folder}/{name}": thing for name, thing in getattr(registration, registry).items()})
    return found


def skeleton(name: str, thing: Any) -> str:
    """What can be known of a page without its author."""
    folder, short = name.split("/")
    first = (inspect.getdoc(thing) or UNWRITTEN).split("\n\n")[0].replace("\n", " ")
    module = thing.__module__
    return f"""# `{short}`

{first}

**Paper.** {UNWRITTEN}

## In YAML

```yaml
{KEYS[folder]}:
  name: {short}
  args: {{}}
```

## In Python

```python
from {module} import {thing.__name__}
```

## Arguments

::: {module}.{thing.__name__}

## Measured here

{UNWRITTEN}

## When not to use it

{UNWRITTEN}
"""


def main() -> None:
    for name, thing in registered().items():
        page = NAMES / f"{name}.md"
        if not page.exists():
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(skeleton(name, thing), encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
