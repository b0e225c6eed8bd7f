"""From the source that a task names to three checked tables and a data card.

::

    rows            what a row and a label are, and what a reader has to know of a task type
    faults          what is wrong with a source, gathered
    layout          which files of a source make up which part
    sources         what is there, and its bytes: local, s3, hub
    records         one file -> rows, in any format
    text_tables     in which encoding a text is, and what separates its cells
    parquet_rows    a Parquet file -> rows, counting what is unpacked
    image_files     the images beside a table
    examples        a row -> an example: text, pair and label, or a fault that names its line
    reading         a source -> its examples, or one error with all faults
    splits          one table -> train, validation, test
    checks          are these parts fit to train on and to be scored on?
    data_card       what a person and the later steps want to know of the data
    inputs          a table to predict -> its inputs, without labels
    predicted_table predictions beside the rows of such a table
    prepared        the folder that holds the tables and the card
    read_sequence   a sequence that is read a part at a time
    fingerprinting  fingerprints of the rows, and the present rows to compare with them
    templates       the template language, with and without soft tokens

Nothing is imported here, so that a pipeline is compiled without pyarrow.
"""

__all__ = [
    "checks",
    "data_card",
    "examples",
    "faults",
    "image_files",
    "inputs",
    "layout",
    "predicted_table",
    "prepared",
    "reading",
    "records",
    "rows",
    "sources",
    "splits",
    "templates",
]
