"""Keep a registry in order: collect what nothing needs, delete tasks, sign what is unsigned."""
