"""The lengths of answers, in tokens of the base that is to write them."""

from collections.abc import Iterator, Mapping, Sequence

from lorry_components.data.examples import Example
from lorry_components.task_types.generation.prompts import PromptWriter

# So few lose their ends without harm.
_FEW = 0.01


def warn_of_cut_answers(parts: Mapping[str, Sequence[Example]], writer: PromptWriter) -> Iterator[str]:
    """Say how many answers of each part are longer than the task lets them be, where they are many.

    Args:
        parts: The examples of each part.
        writer: What writes the task's answers for its base.
    """
    for part, examples in parts.items():
        lengths = writer.measure_answers([str(example.label) for example in examples])
        cut = sum(length > writer.max_target for length in lengths)
        if cut > _FEW * len(lengths):
            result = "their ends are not learned" if part == "train" else "no prediction can be as long"
            yield (
                f"{part} has {cut:,} of {len(lengths):,} answers in more than data.max_target, "
                f"{writer.max_target} tokens: {result}; the longest has {max(lengths):,}"
            )
