"""What a method is trained with: as its paper has it, or as suits a small corpus."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from hounsfield.errors import ConfigError, one_of

# Ours, for a few thousand slices on one machine. The papers' optimisers are made for batches of
# thousands of images; at 64 they crawl. AdamW with one rate, a short climb and a clipped gradient
# trains all four without tuning.
SMALL: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "batch_size": 64,
        "budget": {"epochs": 200},
        "optim": {
            "name": "adamw",
            "lr": 1e-3,
            "weight_decay": 0.05,
            "clip": 3.0,
            "warm_up": 0.05,
            "start_factor": 0.01,
            "final_factor": 0.01,
        },
    }
)

# Ours too: with the paper's 0.05, assignments of so few images are nearly even, and the loss rested
# at ln(prototypes) for as long as it was watched (300 steps, 256 slices); with 0.02 it left.
SMALL_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {"swav": {"epsilon": 0.02}}
)

PAPERS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # Tian et al., arXiv 2301.03580, section 4.1, and
        # https://github.com/keyu-tian/SparK/blob/a63e386f8e5186bc07ad7fce86e06b08f48a61ea/pretrain/utils/arg_util.py
        # https://github.com/keyu-tian/SparK/blob/a63e386f8e5186bc07ad7fce86e06b08f48a61ea/pretrain/utils/lr_control.py
        # https://github.com/keyu-tian/SparK/blob/a63e386f8e5186bc07ad7fce86e06b08f48a61ea/pretrain/models/__init__.py
        "spark": {
            "batch_size": 4096,
            "budget": {"epochs": 1600},
            "drop_path": 0.05,  # of a ResNet-50; the code has 0.08 to 0.4 for larger networks
            "optim": {
                "name": "lamb",
                "lr": 2e-4,
                "reference_batch": 256,
                "weight_decay": 0.04,
                "weight_decay_end": 0.2,
                "betas": (0.9, 0.95),
                "clip": 5.0,
                "warm_up": 40 / 1600,
                "start_factor": 0.005,
                "final_factor": 0.001,
            },
            "options": {"decoder_width": 768, "decoder_stride": 1, "empty_std": 0.0},
        },
        # Chen et al., arXiv 2003.04297, table 1 (800 epochs, cosine); momentum and weight decay
        # as in He et al., arXiv 1911.05722, section 4.
        "moco_v2": {
            "batch_size": 256,
            "budget": {"epochs": 800},
            "optim": {
                "name": "sgd",
                "lr": 0.03,
                "reference_batch": 256,
                "weight_decay": 1e-4,
                "momentum": 0.9,
            },
        },
        # Caron et al., arXiv 2006.09882, appendix A.1, and
        # https://github.com/facebookresearch/swav/blob/06b1b7cbaf6ba2a792300d79c7299db98b93b7f9/scripts/swav_800ep_pretrain.sh
        "swav": {
            "batch_size": 4096,
            "budget": {"epochs": 800},
            "optim": {
                "name": "lars",
                "lr": 0.3,
                "reference_batch": 256,
                "weight_decay": 1e-6,
                "momentum": 0.9,
                "warm_up": 10 / 800,
                "start_factor": 0.3 / 4.8,
                "final_factor": 0.0048 / 4.8,
            },
            "options": {"queue_size": 0},  # only batches of 256 have one
        },
        # Grill et al., arXiv 2006.07733, section 3.2.
        "byol": {
            "batch_size": 4096,
            "budget": {"epochs": 1000},
            "optim": {
                "name": "lars",
                "lr": 0.2,
                "reference_batch": 256,
                "weight_decay": 1.5e-6,
                "momentum": 0.9,
                "warm_up": 10 / 1000,
            },
        },
    }
)
# Unlike the papers of MoCo and SwAV, whose code decays biases and norms too, none of ours does:
# decay on a norm's scale works against the norm and helps no method here.


def defaults(method: str, settings: str) -> Mapping[str, Any]:
    """What `method` is trained with under `settings`, "small" or "paper".

    Options are those whose value is not already the default of the method's own configuration.

    Raises:
        ConfigError: The method has no paper here.
    """
    if settings == "small":
        return {**SMALL, "options": SMALL_OPTIONS.get(method, {})}
    if method not in PAPERS:
        raise ConfigError(f'{one_of("paper for method", method, PAPERS)} Take settings = "small".')
    return PAPERS[method]
