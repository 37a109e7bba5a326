"""The model card: what a stranger must know, from the manifest and from nothing else."""

from collections.abc import Mapping
from typing import Any

from hounsfield.wording import plural

NOT_KNOWN = "not known"

_TIMM = """\
```python
import timm

net = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True).eval()
```

From a hub: `timm.create_model("hf-hub:OWNER/NAME", pretrained=True)`.
"""

_TORCHVISION = """\
```python
import torch, torchvision
from safetensors.torch import load_file

net = torchvision.models.get_model("{backbone}", weights=None)
net.fc = {fc}
net.load_state_dict(load_file("model.safetensors"))
net.eval()
```

The first layer is spread over three channels: copy the grey image into all three.
"""

_ONNX = """\
```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(None, {{"images": images}})  # {outputs}
```

Any number of images at a time.
"""


def model_card(manifest: Mapping[str, Any]) -> str:
    """The card as Markdown with the header that model hubs read."""
    parts = (_header, _what, _input, _load, _training, _measured, _limits)
    return "\n".join(part(manifest) for part in parts)


def _header(manifest: Mapping[str, Any]) -> str:
    library = {"safetensors": "timm", "torchvision": "torchvision", "onnx": "onnx"}
    kind = "image-classification" if manifest["classifier"] else "image-feature-extraction"
    return (
        "---\n"
        "license: unknown  # fill in before you publish\n"
        f"library_name: {library[manifest['format']]}\n"
        f"pipeline_tag: {kind}\n"
        "tags: [medical, computed-tomography, hounsfield]\n"
        "---\n"
    )


def _what(manifest: Mapping[str, Any]) -> str:
    classifier = manifest["classifier"]
    what = f"A `{manifest['backbone']}` for axial CT slices"
    if classifier:
        names = ", ".join(f"`{name}`" for name in classifier["classes"])
        what += f" that classifies `{classifier['task']}` ({names}, in the order of the logits)."
    else:
        what += f" without a classifier: {manifest['embed_dim']} features an image."
    how = manifest["method"] and f" Pre-trained without labels by `{manifest['method']}`."
    return (
        f"# {manifest['backbone']} for CT\n\n{what}{how}\n\n"
        f"Written by hounsfield {manifest['version']}"
        + (f", commit `{manifest['commit'][:12]}`" if manifest["commit"] else "")
        + ". Every number on this page is in `manifest.json` too.\n"
    )


def _input(manifest: Mapping[str, Any]) -> str:
    low, high = manifest["window_hu"]
    size, classifier = manifest["image_size"], manifest["classifier"]
    lines = [
        "## Input\n",
        f"float32 `(batch, {manifest['channels']}, {size}, {size})`: HU, clipped to "
        f"{low:g} to {high:g}, then `(hu - ({low:g})) / {high - low:g}` gives [0, 1], then "
        f"`(unit - {manifest['mean']}) / {manifest['std']}`.",
        "Rows run from anterior to posterior, columns from the patient's right to left.",
    ]
    if classifier:
        grid, spacing = classifier["grid_mm"], classifier["spacing_mm"]
        lines.append(
            f"Slices were stored at {classifier['slice_size']} x {classifier['slice_size']} px"
            + (f", resampled to {grid:g} mm" if grid else ", not resampled")
            + (f", cropped to the {classifier['crop']}" if classifier["crop"] else "")
            + (f"; pixels of {spacing[0]:.3g} to {spacing[1]:.3g} mm." if spacing else ".")
        )
    return "\n".join(lines) + "\n"


def _load(manifest: Mapping[str, Any]) -> str:
    classifier = manifest["classifier"]
    fc = "torch.nn.Identity()"
    if classifier:
        fc = f"torch.nn.Linear({manifest['embed_dim']}, {len(classifier['classes'])})"
    outputs = "[features, logits]" if classifier else "[features]"
    template = {"safetensors": _TIMM, "torchvision": _TORCHVISION, "onnx": _ONNX}
    text = template[manifest["format"]]
    if manifest["format"] != "safetensors":
        text = text.format(backbone=manifest["backbone"], fc=fc, outputs=outputs)
    probe = manifest["probe"]
    return (
        f"## Load\n\n{text}\n"
        f"`{probe['file']}` holds `images` and the `features`"
        + (" and `logits`" if classifier else "")
        + " that must come out. Read back as above, they came out with a greatest difference of "
        f"{probe['greatest_difference']:.1e} ({probe['tolerance']:g} is allowed, times the "
        "greatest value where that is above 1).\n"
    )


def _training(manifest: Mapping[str, Any]) -> str:
    lines = ["## Training\n", f"- Weights: {manifest['origin'] or NOT_KNOWN}"]
    for part in manifest["corpus"]:
        counts = ", ".join(f"{part[key]} {key}" for key in ("patients", "slices") if key in part)
        lines.append(f"- Unlabelled images: store `{part['store'][:16]}` ({counts or NOT_KNOWN})")
    if not manifest["corpus"]:
        stores = ", ".join(f"`{store[:16]}`" for store in manifest["stores"])
        lines.append(f"- Stores seen: {stores or NOT_KNOWN}")
    lines += [f"- {key}: {value}" for key, value in manifest["training"].items()]
    classifier = manifest["classifier"]
    if classifier:
        lines += [
            f"- Labelled images ({part}): {images} of "
            f"{plural(classifier['patients'][part], 'patient')}"
            for part, images in classifier["images"].items()
        ]
        start = classifier["weights"].get("origin") or classifier["weights"].get("source")
        lines.append(f"- Started from: {start or NOT_KNOWN}")
    return "\n".join(lines) + "\n"


def _measured(manifest: Mapping[str, Any]) -> str:
    lines = ["## Measured\n"]
    lines += [f"- {name}: {value:g}" for name, value in manifest["metrics"].items()]
    classifier = manifest["classifier"]
    for part, levels in (classifier["metrics"] if classifier else {}).items():
        for level, values in levels.items():
            n = values.get("n_patients", 0)
            told = ", ".join(f"{k} {v:.3f}" for k, v in values.items() if k != "n_patients")
            lines.append(f"- {part}, by {level}: {told} ({plural(int(n), 'patient')})")
    if classifier:
        chosen = "Validation patients chose the learning rate and the step and set the temperature"
        lines.append(f"\n{chosen}: their scores flatter. None of these numbers has an interval.")
    else:
        lines.append("\nOn no labelled task: what these features are worth is not measured here.")
    return "\n".join(lines) + "\n"


def _limits(manifest: Mapping[str, Any]) -> str:
    del manifest
    return (
        "## Limits\n\n"
        "Not a medical device, and validated for no clinical use. Scans of other scanners, "
        "kernels, contrast phases, ages or body regions than those of the training may be judged "
        "wrongly.\n\n"
        "## To fill in before you publish\n\n"
        "- Licence of the weights: \n"
        "- Licence of the images that they have seen, and whether it lets you publish weights: \n"
        "- Contact: \n"
    )
