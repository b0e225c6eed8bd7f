"""The adapted model of a training before its first step, and how it is computed.

``model_setup`` loads the base and adapts it; ``precision`` chooses the number format and the attention that
are fast on this hardware, ``optimizers`` and ``arguments`` what Trainer is given, ``length`` and
``head_rate`` the defaults that depend on the rows. ``number_head`` lets a head learn numbers in units of
their spread; ``starting_adapter`` begins with the champion's adapter.
"""
