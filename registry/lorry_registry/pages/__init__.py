"""Pages that a browser opens from a file: no network, no font, no library, nothing that is not in the file.

:mod:`~lorry_registry.pages.task_overview` gathers what a page says, :mod:`~lorry_registry.pages.trend` draws
a metric over the versions, :mod:`~lorry_registry.pages.tasks_page` writes it as HTML.
"""

from lorry_registry.pages.task_overview import TaskOverview, describe_tasks
from lorry_registry.pages.tasks_page import render_tasks

__all__ = ["TaskOverview", "describe_tasks", "render_tasks"]
