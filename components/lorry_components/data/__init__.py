"""From the source that a task names to three checked tables and a data card.

::

    layout          which files of a source make up which part
    sources         what is there, and its bytes: local, s3, hub
    records         one file -> rows, whatever its format
    examples        a row -> an example: text, pair and label, or a fault that names its line
    reading         a source -> its examples, or one error with all faults
    splits          one table -> train, validation, test
    checks          are these parts fit to train on and to be scored on?
    data_card       what a person and the later steps want to know of the data
    prepared        the folder that holds the tables and the card

Nothing is imported here, so that a pipeline is compiled without pyarrow.
"""
