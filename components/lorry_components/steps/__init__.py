"""The steps of the pipeline, and the runtime that they share."""
