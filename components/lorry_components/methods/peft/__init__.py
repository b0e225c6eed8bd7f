"""The methods that PEFT implements, behind checks that PEFT does not make.

``base`` wraps, saves and restores, and never lets PEFT read a file or import a module that a configuration
names. ``targets`` is for methods that put something beside chosen linear layers: ``lora``, ``qlora``,
``adalora``, ``vera``, ``ia3``. ``any_peft`` reaches every other method of PEFT by the name that PEFT has for
it. ``spans`` mends PEFT's model for question answering.
"""
