"""A look from inside a cluster: what a pod of Lorry's reaches there. It is a step of no pipeline of tasks."""
