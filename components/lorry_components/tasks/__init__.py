"""A task as a whole: checked, resolved, and compared with the adapters that exist.

``definition`` makes a checked task of a file or a document, ``base_checks`` says whether it works on its
base, and ``staleness`` whether it needs training.

``resolution`` holds what every step takes, a :class:`~lorry_components.tasks.resolution.ResolvedTask`: the
specification together with everything that it names. A process resolves a task once, at its edge: ``lorry
run`` does so for all of its tasks, each step for its own. Nothing below parses, builds or hashes it again.

Not everything that a task names is on every machine: the pod that judges an adapter has no base, and the one
that trains it need not reach the source of its data. So each part is resolved when it is first asked for, and
then kept:

==================  ==================================  ====================================
"""
