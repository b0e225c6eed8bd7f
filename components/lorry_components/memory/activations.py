"""The activations kept for the backward pass, recorded by autograd's own hooks on the meta device."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lorry_components.memory.device_emulation import imitate_device
from lorry_components.models.dimensions import read_hidden_size

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig

_POSITIONS = ("start_positions", "end_positions")
_LOGITS = ("logits", "start_logits", "end_logits")


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes that one forward pass keeps, in fp32.

    Attributes:
        kept: All of them: storages that autograd saves, each once, without parameters and buffers.
        layers: How many repeated layers there are.
        largest_layer: What the largest of them keeps.
        outside: What is kept outside of them: embeddings, head, loss.
        boundary: The largest input of a layer, which gradient checkpointing keeps instead.
        logits: The output.
        passing: What the backward pass holds temporarily besides ``kept``; 0: not measured.
        is_fixed: Whether every batch is as large as this one, as with images.
    """

    kept: int
    layers: int
    largest_layer: int
    outside: int
    boundary: int
    logits: int
    passing: int = 0
    is_fixed: bool = False

    @property
    def checkpointed(self) -> int:
        """What is kept with gradient checkpointing: each layer's input, and one layer computed again."""
        return min(self.kept, self.outside + self.layers * self.boundary + self.largest_layer)


@dataclass(slots=True)
class _Recording:
    """What the hooks recorded, by the layer that was being computed; -1: none."""

    # The storages are held, or else a new one could get the address of one that was freed.
    storages: dict[int, "torch.UntypedStorage"] = field(default_factory=dict)
    sizes: dict[int, dict[int, int]] = field(default_factory=dict)
    current: int = -1
    boundary: int = 0


def measure_activations(
    model: "nn.Module",
    *,
    rows: int,
    tokens: int,
    target_tokens: int | None = None,
    supervised_tokens: int | None = None,
    on_cuda: bool = False,
) -> Activations:
    """Run a model forward, loss included, and add up what it keeps.

    On the meta device nothing is computed; on another device the figure is a measurement.

    Args:
        model: In the state in which it is trained.
        rows: Texts in a batch.
        tokens: Length of each, in tokens.
        target_tokens: Length of each answer, for a model that has a decoder beside its encoder.
        supervised_tokens: How many tokens of each text count in the loss of a causal language model; None:
            all, and outputs are computed for all.
        on_cuda: Whether a model on the meta device stands for one on a GPU.
    """
    import torch

    device = next(model.parameters()).device
    inputs = torch.zeros((rows, tokens), dtype=torch.long, device=device)
    arguments: dict[str, torch.Tensor] = {"input_ids": inputs}
    if supervised_tokens is not None:
        arguments["labels"] = torch.zeros((rows, supervised_tokens), dtype=torch.long, device=device)
    elif target_tokens is not None:
        arguments["labels"] = torch.zeros((rows, target_tokens), dtype=torch.long, device=device)
    elif _points_at_tokens(model):
        arguments |= {name: torch.zeros(rows, dtype=torch.long, device=device) for name in _POSITIONS}
    elif _predicts_tokens(model):
        arguments["labels"] = inputs
    else:
        arguments["labels"] = torch.zeros(rows, dtype=_choose_label_type(model), device=device)
    # transformers reads the values of a padding mask, so none is given.
    return measure_pass(model, lambda: _run(model, arguments), on_cuda=on_cuda)


def measure_pass(model: "nn.Module", run: Callable[[], Any], *, on_cuda: bool = False) -> Activations:
    """Run a model forward and add up what it keeps.

    Args:
        model: In the state in which it is trained.
        run: Calls it on a batch, and returns its outputs by name.
        on_cuda: Whether a model on the meta device stands for one on a GPU.
    """
    recording = _Recording()
    with contextlib.ExitStack() as stack:
        if next(model.parameters()).device.type == "meta":
            stack.enter_context(imitate_device(on_cuda=on_cuda))
        outputs = _record(model, run, recording)
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    layers = {
        index: sum(size for key, size in sizes.items() if key not in own)
        for index, sizes in recording.sizes.items()
    }
    inside = [size for index, size in layers.items() if index >= 0]
    return Activations(
        kept=sum(layers.values()),
        layers=len(inside),
        largest_layer=max(inside, default=0),
        outside=layers.get(-1, 0),
        boundary=recording.boundary,
        logits=outputs * 4,
    )


def measure_cache(config: "PretrainedConfig", *, rows: int, tokens: int) -> int:
    """Return the bytes of keys and values, in fp32, that a decoder holds while it generates these tokens.

    For a base without attention, such as Mamba, it is the state, regardless of the number of tokens.
    """
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_attention_heads", None)
    if heads is None:
        return int(4 * rows * text.num_hidden_layers * _count_state(text))
    width = getattr(text, "head_dim", None) or getattr(text, "d_kv", None)
    width = width or read_hidden_size(text) // text.num_attention_heads
    layers = getattr(text, "num_decoder_layers", None) or text.num_hidden_layers
    return int(2 * 4 * layers * heads * width * rows * tokens)


def _count_state(config: "PretrainedConfig") -> int:
    """Return how many numbers a layer without attention keeps of a text: a state, and a convolution's."""
    inner = getattr(config, "intermediate_size", None) or getattr(config, "expand", 1) * read_hidden_size(
        config
    )
    state, kernel = getattr(config, "state_size", 1), getattr(config, "conv_kernel", 0)
    convolved = inner + 2 * getattr(config, "n_groups", 0) * state
    return int(inner * state + convolved * kernel)


def _record(model: "nn.Module", run: Callable[[], Any], recording: _Recording) -> int:
    """Run a model; return how many numbers its output has."""
    import torch

    def keep(tensor: "torch.Tensor") -> "torch.Tensor":
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in recording.storages:
            recording.storages[key] = storage
            recording.sizes.setdefault(recording.current, {})[key] = storage.nbytes()
        return tensor

    was_training = model.training
    model.train()
    try:
        with _watch_layers(model, recording), torch.autograd.graph.saved_tensors_hooks(keep, _return_same):
            outputs = run()
    finally:
        model.train(was_training)
    return sum(outputs[name].numel() for name in _LOGITS if name in outputs)


def _run(model: "nn.Module", arguments: dict[str, "torch.Tensor"]) -> Any:
    """Return what the model returns, having computed the loss."""
    inputs, labels = arguments["input_ids"], arguments.get("labels")
    if labels is None or labels.ndim != 2 or labels.shape == inputs.shape or not _predicts_tokens(model):
        return model(**arguments)
    from torch.nn import functional

    from lorry_components.training.kernels.supervised_logits import choose_states

    # Which positions count is not known beforehand; only their number matters.
    with choose_states(model, lambda states: states[:, -labels.shape[1] :]):
        outputs = model(input_ids=inputs)
    functional.cross_entropy(outputs.logits.flatten(0, 1).float(), labels.flatten())
    return outputs


def _return_same(tensor: "torch.Tensor") -> "torch.Tensor":
    return tensor


@contextlib.contextmanager
def _watch_layers(model: "nn.Module", recording: _Recording) -> Iterator[None]:
    def enter(index: int) -> Any:
        def note(_module: "nn.Module", inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            recording.current = index
            hidden = inputs[0] if inputs else named.get("hidden_states")
            if hidden is not None and hasattr(hidden, "numel"):
                recording.boundary = max(recording.boundary, hidden.numel() * hidden.element_size())

        return note

    def leave(_module: "nn.Module", _inputs: Any, _outputs: Any) -> None:
        recording.current = -1

    hooks = []
    for index, layer in enumerate(_list_layers(model)):
        hooks.append(layer.register_forward_pre_hook(enter(index), with_kwargs=True))
        hooks.append(layer.register_forward_hook(leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _list_layers(model: "nn.Module") -> "list[nn.Module]":
    """Return the repeated layers: the members of the outermost lists of modules of one class."""
    from torch import nn

    layers: list[nn.Module] = []
    inside: set[str] = set()
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in inside) or not isinstance(module, nn.ModuleList):
            continue
        if len(module) and len({type(member) for member in module}) == 1:
            layers.extend(module)
            inside.add(name)
    return layers


def _predicts_tokens(model: Any) -> bool:
    endings = ("ForCausalLM", "LMHeadModel", "ForMaskedLM")
    return any(type(module).__name__.endswith(endings) for module in model.modules())


def _points_at_tokens(model: Any) -> bool:
    # XLNet's and XLM's classes end in 'Simple'.
    return any("ForQuestionAnswering" in type(module).__name__ for module in model.modules())


def _choose_label_type(model: Any) -> "torch.dtype":
    import torch

    is_regression = getattr(model.config, "problem_type", None) == "regression"
    return torch.float32 if is_regression else torch.long
