"""Makes the buckets that are missing: ``make_buckets.py NAME...``."""

import sys

import boto3


def make_buckets(names: list[str]) -> None:
    """Make buckets, unless they are there."""
    client = boto3.client("s3")
    present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in names:
        if name not in present:
            client.create_bucket(Bucket=name)


if __name__ == "__main__":
    make_buckets(sys.argv[1:])
