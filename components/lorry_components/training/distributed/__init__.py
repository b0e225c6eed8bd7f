"""One training over several GPUs and machines.

``process_group`` runs the step in a process for each GPU, ``node_agreement`` decides on the step to go on
from, and ``sharding`` divides the frozen weights among the processes.
"""
