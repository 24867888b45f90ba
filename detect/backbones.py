"""Backbones from timm and torchvision: built by name, with ImageNet weights where to be had."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from musicon.datasets import lite
from musicon.datasets.records import UserError

log = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BackboneError(UserError):
    """A backbone or a weight file that cannot be had; the message says what to write instead."""


def build_network(name: str, num_outputs: int, *, weights: str = "auto",
                  dropout: float = 0.0) -> nn.Module:
    """An image classification network, images (N, 3, S, S) -> logits (N, num_outputs).

    Args:
        name: A timm model name, or ``torchvision:NAME``.
        num_outputs: Size of the new, randomly initialised last layer; 0 leaves it out, so that
            features (N, C) come out.
        weights: ``auto``, ``none``, or a file (safetensors or a state dictionary).
        dropout: Before the last layer, where the architecture has it.

    Raises:
        BackboneError: Unknown name (the message lists near ones) or unusable weight file.
    """
    if weights not in ("auto", "none") and not Path(weights).is_file():
        raise BackboneError(f"{weights}: no such weight file; write weights=auto or weights=none")
    if name.startswith("torchvision:"):
        return _torchvision_network(name.split(":", 1)[1], num_outputs, weights, dropout)
    return _timm_network(name, num_outputs, weights, dropout)


def normalisation(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel means and deviations, for images in 0..1, that a network was trained with."""
    cfg = getattr(network, "pretrained_cfg", None) or {}
    return tuple(cfg.get("mean", IMAGENET_MEAN)), tuple(cfg.get("std", IMAGENET_STD))


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the layer that gives the logits."""
    linears = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not linears:
        raise BackboneError(f"{type(network).__name__} ends in no linear layer; choose another")
    return linears[-1]


class Pyramid(nn.Module):
    """The feature maps of a backbone at strides 8, 16 and 32.

    Attributes:
        channels: Channels of each map.
        strides: Input pixels a cell, ``(8, 16, 32)``.
    """

    strides = (8, 16, 32)

    def __init__(self, name: str, network: nn.Module | None = None) -> None:
        """Build the pyramid of a backbone, with the weights of ``network`` where it is given."""
        super().__init__()
        if name.startswith("torchvision:"):
            source = network or _torchvision_network(name.split(":", 1)[1], 2, "none", 0.0)
            self.body = _torchvision_pyramid(copy.deepcopy(source).cpu().requires_grad_(True))
        else:
            self.body = _timm_pyramid(name, self.strides)
            if network is not None:
                _carry_over(name, network, self.body)
        self.border = _missing_border(self.body.eval())
        with torch.no_grad():
            maps = self.eval()(torch.zeros(1, 3, 128, 128))
        self.channels = tuple(m.shape[1] for m in maps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) -> maps (N, C_i, H / s_i, W / s_i), finest first."""
        if self.border:
            before, after = self.border // 2, self.border - self.border // 2
            images = nn.functional.pad(images, (before, after, before, after), mode="replicate")
        maps = self.body(images)
        return list(maps.values()) if isinstance(maps, Mapping) else list(maps)


def freeze_stages(network: nn.Module, stages: int) -> None:
    """Stop the first ``stages`` stages of a network (the stem is the first) from learning."""
    for part in _stages(network)[:stages]:
        part.requires_grad_(False)


def hold_batch_norm(module: nn.Module, *, frozen_only: bool = False) -> None:
    """Keep batch normalisation on its running statistics, as small batches need.

    With ``frozen_only`` just the layers whose own parameters don't learn.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            learns = any(p.requires_grad for p in layer.parameters())
            if not (frozen_only and learns):
                layer.eval()


def copy_weights(state: Mapping[str, Tensor], target: nn.Module) -> int:
    """Copy the tensors that agree in name and shape; returns how many."""
    own = target.state_dict()
    shared = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    target.load_state_dict(shared, strict=False)
    return len(shared)


def _carry_over(name: str, network: nn.Module, body: nn.Module) -> None:
    """Give timm's network of feature maps the weights of its network of logits, every one.

    Raises:
        BackboneError: Some of them cannot be found.
    """
    given = {_flat(key): tensor for key, tensor in network.state_dict().items()}
    own = list(body.state_dict())
    copied = copy_weights({key: given[_flat(key)] for key in own if _flat(key) in given}, body)
    if copied < len(own):
        raise BackboneError(f"{name}: only {copied} of the {len(own)} tensors of its feature maps "
                            "are found in the classifier; choose another backbone, such as "
                            "resnet50")
    log.info("%s: all %d tensors from the classifier", name, copied)


def _flat(key: str) -> str:
    """A tensor's name without its levels: where timm cuts a network, ``stages.0`` is ``stages_0``.

    Where it looks into one instead, the whole lies under ``body``.
    """
    return key.replace("_", ".").removeprefix("body.")


def _stages(network: nn.Module) -> list[nn.Module]:
    """Children in order, with sequences of blocks (``blocks``, ``features``, ``layers``) opened."""
    parts: list[nn.Module] = []
    stem: list[nn.Module] = []
    for name, child in network.named_children():
        if name in ("blocks", "features", "layers", "stages") and len(list(child.children())) > 1:
            parts += list(child.children())
        elif name.startswith(("layer", "stages_", "blocks_", "Mixed", "blocks.", "features_")):
            parts.append(child)
        elif not parts:
            stem.append(child)
    return ([nn.ModuleList(stem)] if stem else []) + parts


def _timm_network(name: str, num_outputs: int, weights: str, dropout: float) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0][:8]}*")[:6]) or "resnet50"
        raise BackboneError(f"timm has no model {name!r}; near it: {near}")
    options: dict[str, Any] = {"num_classes": num_outputs, "drop_rate": dropout}
    if weights == "auto":
        network = _timm_pretrained(name, options)
    else:
        network = timm.create_model(name, **options)
        if weights != "none":
            load_weight_file(network, Path(weights))
    return network


def _timm_pretrained(name: str, options: dict[str, Any]) -> nn.Module:
    """ImageNet weights from the installed package, else timm's download, else a random start."""
    import timm

    if lite.installed(name):
        network = timm.create_model(name, **options)
        lite.load_in_order(network, lite.weight_file(name))
        return network
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # noqa: BLE001 (each hub client raises errors of its own)
        _warn_random(name, error)
        return timm.create_model(name, **options)


def _torchvision_network(name: str, num_outputs: int, weights: str, dropout: float) -> nn.Module:
    import torchvision.models as zoo

    if name not in zoo.list_models(module=zoo):
        raise BackboneError(f"torchvision has no classification model {name!r}; "
                            f"it has {', '.join(zoo.list_models(module=zoo)[:12])}, ...")
    options: dict[str, Any] = {}
    if name in ("inception_v3", "googlenet"):
        options = {"init_weights": False}
    network: nn.Module
    if weights == "auto":
        try:
            network = zoo.get_model(name, weights="DEFAULT")
        except Exception as error:  # noqa: BLE001 (offline shows itself in many ways)
            _warn_random(name, error)
            network = zoo.get_model(name, weights=None, **options)
    else:
        network = zoo.get_model(name, weights=None, **options)
        if weights != "none":
            load_weight_file(network, Path(weights))
    if hasattr(network, "aux_logits"):
        network.__dict__["aux_logits"] = False
        for aux in ("AuxLogits", "aux1", "aux2"):
            if hasattr(network, aux):
                setattr(network, aux, None)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    path, old = last_linear(network)
    parent = network.get_submodule(path.rpartition(".")[0])
    new = nn.Linear(old.in_features, num_outputs) if num_outputs else nn.Identity()
    setattr(parent, path.rpartition(".")[2], new)
    return network


def _warn_random(name: str, error: Exception) -> None:
    reason = str(error).strip().splitlines()[-1][:120] if str(error).strip() else repr(error)
    warnings.warn(f"{name}: no pretrained weights could be fetched ({reason}); starting from "
                  "random weights. Give a file with --set classifier.weights=FILE (of a task: "
                  "network.weights), or let "
                  "batch normalisation learn too with --set classifier.batch_norm=learnt.",
                  stacklevel=3)


def _timm_pyramid(name: str, strides: tuple[int, ...]) -> nn.Module:
    import timm

    info: Any = timm.create_model(name, features_only=True).feature_info
    levels = [i for i, r in enumerate(info.reduction()) if r in strides]
    if [info.reduction()[i] for i in levels] != list(strides):
        raise BackboneError(f"{name} has no feature maps at strides 8, 16 and 32; "
                            "choose a convolutional backbone, such as resnet50")
    return timm.create_model(name, features_only=True, out_indices=levels)


def _torchvision_pyramid(network: nn.Module) -> nn.Module:
    """Cut a torchvision network at the last map of stride 8, 16 and 32."""
    from torchvision.models.feature_extraction import (
        create_feature_extractor,
        get_graph_node_names,
    )

    _, nodes = get_graph_node_names(network)
    everything = create_feature_extractor(network.eval(), return_nodes=nodes[1:])
    with torch.no_grad():
        maps: Any = everything(torch.zeros(1, 3, 256, 256))
    exact: dict[int, str] = {}
    near: dict[int, str] = {}
    for node, value in maps.items():
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[-1] > 1:
            stride = 256 / value.shape[-1]
            exact[int(stride) if stride.is_integer() else 0] = node
            near[2 ** round(math.log2(stride))] = node
    # VGG ends in 7 x 7 cells whatever comes in, which are near but no map: exact ones go first.
    last = {s: node for s in (8, 16, 32) if (node := exact.get(s) or near.get(s))}
    if len(last) < 3:
        raise BackboneError(f"{type(network).__name__} has no maps at strides 8, 16 and 32")
    return create_feature_extractor(network, {last[s]: str(s) for s in (8, 16, 32)})


def _missing_border(body: nn.Module) -> int:
    """Pixels by which an image must grow for the finest map to have a cell for each 8 of its own.

    Networks without padding (Inception) lose a border, so that cells would lie beside the pixels
    that they stand for; of other networks 0.
    """
    with torch.no_grad():
        for border in range(33):
            maps: Any = body(torch.zeros(1, 3, 256 + border, 256 + border))
            if (maps["8"] if isinstance(maps, Mapping) else maps[0]).shape[-1] == 32:
                return border
    return 0


def load_weight_file(network: nn.Module, file: Path) -> None:
    """Load a state dictionary, leaving out the last layer when its size differs.

    Raises:
        BackboneError: Not a weight file, or of another architecture.
    """
    copied, own = copy_weights(read_weight_file(file), network), len(network.state_dict())
    if copied < own - 2 - own // 20:
        raise BackboneError(f"{file}: only {copied} of {own} tensors fit "
                            f"{type(network).__name__}; it holds another architecture's weights")


def read_weight_file(file: Path) -> Mapping[str, Any]:
    """The state dictionary of a file of safetensors or of PyTorch's, without running a pickle.

    Raises:
        BackboneError: Not a weight file.
    """
    state: Any
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 (unpickling errors have no common base)
        raise BackboneError(f"{file}: not a readable weight file ({error})") from None
    if not isinstance(state, Mapping):
        raise BackboneError(f"{file}: it holds a {type(state).__name__}, not a state dictionary")
    found: Mapping[str, Any] = state.get("state_dict", state)
    return found
