"""Print a row for each package of a coverage report in JSON, whose path is the argument, and the total."""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

_TITLES = ("package", "statements", "branches", "covered")


def main() -> None:
    """Read the report that is named on the command line, and print the table."""
    report = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    rows = [_format_row(name, counts) for name, counts in sorted(sum_packages(report["files"]).items())]
    rows.append(_format_row("total", report["totals"]))
    widths = [max(map(len, column)) for column in zip(_TITLES, *rows, strict=True)]
    for row in (_TITLES, *rows):
        name, *numbers = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print(name, *numbers, sep="   ")


def sum_packages(files: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the counts of each folder, those of the files in it and in no folder below it."""
    packages: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for path, measured in files.items():
        # The first part is the folder that holds the package, such as components/.
        package = ".".join(PurePath(path).parent.parts[1:])
        for name, count in measured["summary"].items():
            if isinstance(count, int):
                packages[package][name] += count
    return packages


def _format_row(name: str, counts: Mapping[str, Any]) -> tuple[str, str, str, str]:
    branches = counts["num_branches"]
    covered = counts["covered_lines"] + counts["covered_branches"]
    share = covered / max(1, counts["num_statements"] + branches)
    return name, f"{counts['num_statements']:,}", f"{branches:,}", f"{share:.1%}"


if __name__ == "__main__":
    main()
