"""The fixtures of the command line and of studies: tasks, trials, commands in this process."""

from fixtures.generators import generator_base, make_generator_spec, restaurants  # noqa: F401
from fixtures.libraries import calm_libraries  # noqa: F401
from fixtures.plans import make_plan_spec  # noqa: F401
from fixtures.trials import cloze, compare, conclude, invoke, lay_out, task_file  # noqa: F401
