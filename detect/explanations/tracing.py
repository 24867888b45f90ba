"""The stages of a network, found by watching one forward pass.

Every operation that PyTorch runs is noted with what went in and what came out, so that modules,
functions (``F.relu``) and padding computed on the way are all seen, in any architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from musicon.datasets.records import UserError

ACTIVATIONS = frozenset({"relu", "hardtanh", "hardswish", "silu", "gelu", "leaky_relu", "elu",
                         "celu", "selu", "mish", "prelu", "_prelu_kernel", "softplus"})
"""PyTorch's operations that end a stage; ReLU6 is a ``hardtanh``."""
WINDOWED = frozenset({"convolution", "max_pool2d_with_indices", "avg_pool2d", "constant_pad_nd",
                      "reflection_pad2d", "replication_pad2d"})
"""Operations whose outputs each see a window of the input."""
GLOBAL = frozenset({"mean", "sum", "amax", "_adaptive_avg_pool2d", "adaptive_max_pool2d"})
"""Operations after which nothing is known of places any more."""


class ExplanationError(UserError):
    """A network or a class that cannot be explained as asked; the message says what to do."""


@dataclass(frozen=True)
class Window:
    """What one output of a convolution, a pooling or a padding sees of the input.

    Attributes:
        kernel: Height and width of the window.
        stride: From one window to the next, down and across.
        padding: Rows and columns added above and to the left.
        dilation: From one row or column of the window to the next.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def scale_up(self, maps: Tensor, target_hw: tuple[int, int]) -> Tensor:
        """The deconvolution (transposed convolution) of ones, from output to input.

        Args:
            maps: (N, h, w), as large as the operation's output.
            target_hw: Height and width of the operation's input.

        Returns:
            (N, H, W): each value of the input is the sum of the outputs whose window covers it.
        """
        ones = maps.new_ones(1, 1, *self.kernel)
        whole = F.conv_transpose2d(maps[:, None], ones, stride=self.stride,
                                   dilation=self.dilation)[:, 0]
        (top, left), (height, width) = self.padding, target_hw
        cut = whole[:, top:top + height, left:left + width]
        # What no window reaches, as the stride left it over, stays 0.
        return F.pad(cut, (0, width - cut.shape[2], 0, height - cut.shape[1]))


@dataclass(frozen=True)
class Step:
    """One operation that keeps track of places.

    Attributes:
        kind: ``input``, ``convolution``, ``pooling``, ``padding``, ``activation``, ``joining``
            (of channels) or ``other`` (normalisation, sums, ...).
        inputs: Places of the steps whose maps went in, in the trace.
        hw: Height and width of the maps that came out.
        module: The innermost module that ran it.
        window: Of a convolution, pooling or padding.
        average: Of activations and joinings: the positive part of the maps, averaged over the
            channels, float64 (N, H, W), on the CPU: not every device has float64.
        convolution: Number of the convolution (from 0) whose maps these still are, normalised or
            activated; None when something else came in between.
    """

    kind: str
    inputs: tuple[int, ...]
    hw: tuple[int, int]
    module: str = ""
    window: Window | None = None
    average: Tensor | None = None
    convolution: int | None = None


@dataclass(frozen=True)
class Trace:
    """A forward pass.

    Attributes:
        steps: In the order in which they ran; the first is the input.
        convolutions: Module of every convolution, in that order.
        maps: Number of a convolution -> its maps (N, C, H, W), activated where an activation
            follows; only of those asked for.
        outputs: Module -> the step that gave its output.
        lost: Modules that convolve or pool maps whose places could not be followed.
    """

    steps: Sequence[Step]
    convolutions: Sequence[str]
    maps: Mapping[int, Tensor]
    outputs: Mapping[str, int]
    lost: Sequence[str] = ()

    def main_path(self) -> list[int]:
        """Steps from the input to the deepest activation, through as many activations as possible.

        Shortcuts are left aside so; of branches that are joined, the one with most activations is
        taken. Maps of a single value know no places and don't count.

        Raises:
            ExplanationError: The network has no such path.
        """
        best: list[tuple[int, int, int]] = []  # activations, convolutions, step before
        for step in self.steps:
            before = max(step.inputs, key=lambda i: best[i][:2], default=-1)
            activations, convolutions = best[before][:2] if before >= 0 else (0, 0)
            best.append((activations + (step.kind == "activation"),
                         convolutions + (step.kind == "convolution"), before))
        ends = [i for i, s in enumerate(self.steps)
                if s.kind in ("activation", "joining") and s.hw != (1, 1)]
        end = max(ends, key=lambda i: (best[i][0], i), default=0)
        if self.lost or not best[end][0]:
            where = f" (lost at {self.lost[0]})" if self.lost else ""
            raise ExplanationError(
                "this network has no path of convolutions and activations from the picture to its "
                f"last maps{where}; explain it with --method integrated-gradients, or train a "
                "convolutional backbone, such as resnet50")
        path = [end]
        while best[path[-1]][2] >= 0:
            path.append(best[path[-1]][2])
        return path[::-1]

    def deepest_module(self) -> str:
        """The module whose output is the last map of the main path."""
        path = set(self.main_path())
        return max((m for m, place in self.outputs.items() if place in path and m),
                   key=lambda m: self.outputs[m])


@torch.no_grad()
def trace(network: nn.Module, images: Tensor, keep: Collection[int] = ()) -> Trace:
    """Run a network once and note what it does.

    Args:
        network: In eval mode; images (N, 3, H, W) go in.
        images: A batch.
        keep: Numbers of the convolutions (from 0) whose maps are wanted.
    """
    watcher = _Watcher(images, frozenset(keep))
    with _module_names(network, watcher), watcher:
        network(images)
    return Trace(watcher.steps, watcher.convolutions, watcher.maps, watcher.outputs,
                 watcher.lost)


@dataclass(eq=False)
class _Noted:
    """Where the maps of a tensor come from."""

    seen: Any = field(default_factory=WeakTensorKeyDictionary)

    def places(self, tensors: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
        return [(self.seen[t], t) for t in tensors if t in self.seen]


class _Watcher(TorchDispatchMode):
    """Sees every operation, below modules and functions."""

    def __init__(self, images: Tensor, keep: frozenset[int]) -> None:
        super().__init__()
        self.keep = keep
        self.noted = _Noted()
        self.steps: list[Step] = []
        self.convolutions: list[str] = []
        self.maps: dict[int, Tensor] = {}
        self.outputs: dict[str, int] = {}
        self.lost: list[str] = []
        self.running: list[str] = [""]
        self._add(images, "input", ())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        name = name if name.startswith("_") else name.rstrip("_")
        if name in WINDOWED:
            self._windowed(name, args, result)
        elif name not in GLOBAL:
            self._elementwise(name, args, result)
        return result

    def finished(self, module: str, output: Any) -> None:
        """A module is done; its output is one of the maps, or not."""
        if isinstance(output, Tensor) and output in self.noted.seen:
            self.outputs.setdefault(module, self.noted.seen[output])

    def _windowed(self, name: str, args: Any, result: Any) -> None:
        source = args[0]
        output = result[0] if isinstance(result, tuple) else result
        window = _window(name, args)
        if source not in self.noted.seen or window is None:
            if source.ndim == 4 and source.shape[2] * source.shape[3] > 1:
                self.lost.append(self.running[-1])
            return
        kind = {"convolution": "convolution", "max_pool2d_with_indices": "pooling",
                "avg_pool2d": "pooling"}.get(name, "padding")
        convolution = None
        if kind == "convolution":
            convolution = len(self.convolutions)
            self.convolutions.append(self.running[-1])
        self._add(output, kind, (self.noted.seen[source],), window, convolution)

    def _elementwise(self, name: str, args: Any, result: Any) -> None:
        """Operations that leave every value where it is; others are not followed."""
        sources = self.noted.places(list(_tensors(args)))
        if not sources:
            return
        for output in _tensors(result):
            inputs = tuple(place for place, tensor in sources if output.ndim >= 4
                           and self.steps[place].hw == tuple(output.shape[-2:]))
            if not inputs:
                continue
            kind = ("activation" if name in ACTIVATIONS else
                    "joining" if name == "cat" else "other")
            first = self.steps[inputs[0]]
            same = len(inputs) == 1 and first.kind != "activation"
            self._add(output, kind, inputs, convolution=first.convolution if same else None)

    def _add(self, output: Tensor, kind: str, inputs: tuple[int, ...],
             window: Window | None = None, convolution: int | None = None) -> None:
        average = None
        if kind in ("activation", "joining") and output.ndim == 4:
            average = output.clamp(min=0).mean(dim=1).cpu().double()
        if convolution is not None and convolution in self.keep:
            self.maps[convolution] = output.clone()
        self.noted.seen[output] = len(self.steps)
        self.steps.append(Step(kind, inputs, (output.shape[-2], output.shape[-1]),
                               self.running[-1], window, average, convolution))


def _window(name: str, args: Any) -> Window | None:
    """The window of an operation, from PyTorch's arguments; None where there is none."""
    if name == "convolution":
        _, weight, _, stride, padding, dilation, transposed = args[:7]
        if transposed or weight.ndim != 4:
            return None
        return Window(tuple(weight.shape[2:]), _pair(stride), _pair(padding), _pair(dilation))
    if name == "max_pool2d_with_indices" or name == "avg_pool2d":
        given = [_pair(value) for value in args[1:4]]
        kernel = given[0]
        stride = given[1] if len(given) > 1 and args[2] else kernel
        dilation = (_pair(args[4]) if name.startswith("max") and len(args) > 4 else (1, 1))
        return Window(kernel, stride, given[2] if len(given) > 2 else (0, 0), dilation)
    sides = list(args[1])
    left, top = sides[0], sides[2] if len(sides) > 2 else 0
    if len(sides) > 4 or min(left, top) < 0:
        return None
    return Window((1, 1), padding=(top, left))


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value) or [1]
    return int(values[0]), int(values[-1])


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


@contextmanager
def _module_names(network: nn.Module, watcher: _Watcher) -> Iterator[None]:
    """Hooks that tell the watcher which module runs."""
    def entering(name: str) -> Callable[..., None]:
        return lambda module, args: watcher.running.append(name)

    def leaving(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            watcher.running.pop()
            watcher.finished(name, output)
        return note

    with ExitStack() as stack:
        for name, module in network.named_modules():
            for hook in (module.register_forward_pre_hook(entering(name)),
                         module.register_forward_hook(leaving(name))):
                stack.callback(hook.remove)
        yield
