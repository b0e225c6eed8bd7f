"""Sources and their bytes: files on this machine, objects in S3, data sets on a hub."""

__all__ = ["hub", "local", "s3"]
