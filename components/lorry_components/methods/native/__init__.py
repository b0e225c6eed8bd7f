"""The methods that are implemented here, without PEFT.

``own_weights`` is the base class of those that train some of the base's own weights and store what changed:
``full``, ``ft_top`` (the last blocks) and ``bitfit`` (the biases). ``bottleneck`` holds the four adapters
that put small modules into every block, and ``prelayer`` learns activations of a prefix after every layer.
All write the configuration file of ``base``.
"""
