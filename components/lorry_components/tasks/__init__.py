"""A task as a whole: checked, resolved, and compared with the adapters that exist.

``definition`` makes a checked task of a file or a document, ``base_checks`` says whether it works on its
base, and ``staleness`` whether it needs training: ``resolved_recipe`` is what an adapter is made of beside
base and data, ``code_versions`` the versions of the code among it, ``changes`` finds what differs, and
``inspection`` tells how a task stands beside its champion, with changes of data in rows.

``resolution`` holds what every step takes, a :class:`~lorry_components.tasks.resolution.ResolvedTask`: the
specification together with everything that it names. A process resolves a task once, at its edge: ``lorry
run`` does so for all of its tasks, each step for its own. Nothing below parses, builds or hashes it again.

Not everything that a task names is on every machine: the pod that judges an adapter has no base, and the one
that trains it need not reach the source of its data. So each part is resolved when it is first asked for, and
then kept:

==================  ==================================  ===========================================
part                resolving it                        asked for by
==================  ==================================  ===========================================
``task_type``       builds an object                    prepare_data, finetune, evaluate
``base``            finds, downloads, hashes the base   prepare_data, finetune, evaluate
``base_identity``   as ``base``; downloads nothing      staleness
                    from a place on S3
``source_digest``   hashes or lists the source          staleness, prepare_data
``recipe_digest``   hashes the specification            staleness, finetune
==================  ==================================  ===========================================

A method is the exception: some methods remember what they took out of a base, so each training and each
loaded adapter builds its own (``build_method``), from options that were validated once.

The gate, the registration and the report ask for the specification only.

Hashing goes through a function that the edge passes in: Lorry's own processes pass one that looks a digest up
if the file has not changed (:mod:`lorry_registry.files.digest_cache`); without one every file is hashed in
full.
"""

__all__: list[str] = []
