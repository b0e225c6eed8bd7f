"""Answers that are to be written, counted in the tokens of the base that writes them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lorry_components.data.examples import Example
from lorry_components.task_types.generation.base import GenerationTaskType

# So few lose their ends without harm.
_FEW = 0.01


def warn_of_cut_answers(
    parts: Mapping[str, Sequence[Example]], task_type: GenerationTaskType, base: Path
) -> Iterator[str]:
    """Say how many answers of each part are longer than the task lets them be, where they are many.

    Raises:
        TrainingError: The base's tokeniser has no token that ends a text.
    """
    writer = task_type.build_writer(task_type.load_reader(base))
    for part, examples in parts.items():
        lengths = writer.measure_answers([str(example.label) for example in examples])
        cut = sum(length > writer.max_target for length in lengths)
        if cut > _FEW * len(lengths):
            result = "their ends are not learned" if part == "train" else "no prediction can be as long"
            yield (
                f"{part} has {cut:,} of {len(lengths):,} answers in more than data.max_target, "
                f"{writer.max_target} tokens: {result}; the longest has {max(lengths):,}"
            )
