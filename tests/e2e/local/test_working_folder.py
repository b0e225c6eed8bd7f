"""Files beside the table, whatever their names, are no libraries of the steps."""

from typing import Any

_NAMES = ("datasets", "tokenizers", "torch", "tty", "kfp", "json", "lorry_components")


def test_files_of_the_working_folder_shadow_no_library(workspace: Any) -> None:
    for name in _NAMES:
        (workspace.folder / f"{name}.py").write_text('raise RuntimeError("a file of the working folder")\n')
    workspace.write_task("films")
    (told,) = workspace.run_json("run", "films.yaml")
    assert told["outcome"] == "promoted"
    workspace.run("compare", "films.yaml", "--methods", "probe", "--seeds", "0")
    assert "working folder" not in workspace.read_log()
