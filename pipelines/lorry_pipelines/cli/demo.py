"""``lorry demo``: what the first run needs."""

from pathlib import Path

import click

from lorry_registry.cli.edge import format_examples


@click.command(epilog=format_examples("lorry demo pipelines/tasks/data"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def fetch_demo(folder: Path) -> None:
    """Fetch the demo's data sets into a folder.

    Sentences of tweets, product reviews, film reviews and newspaper editorials, each with the mean sentiment
    rating of 20 people (Hutto and Gilbert 2014, MIT) and the class that follows from it, from a source
    distribution on the package index whose SHA-256 is checked. Files that exist are kept, unless a column is
    missing in one.
    """
    from lorry_pipelines.demo_data import fetch_data

    for path in fetch_data(folder):
        click.echo(str(path))
