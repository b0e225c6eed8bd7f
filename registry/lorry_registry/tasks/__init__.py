"""Read a task file into one frozen model, with every fault named at once."""
