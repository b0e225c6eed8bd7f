"""The published figures of the papers, which nothing else in the product depends on.

:mod:`~lorry_components.reference.entries` holds the figures that Hu et al. 2021, PEFT and others have
published on trained parameters and memory, and :mod:`~lorry_components.reference.published_rows` computes
Lorry's own beside them, for ``lorry plan --published``: by the modules of a method, by a closed form
(:mod:`~lorry_components.reference.closed_forms`), or as the published runs of DreamBooth
(:mod:`~lorry_components.reference.dreambooth`). :mod:`~lorry_components.reference.study_figures` holds the
figures that studies of ranks and targets print beside theirs. Only the commands that print them import these
modules.
"""

__all__: list[str] = []
