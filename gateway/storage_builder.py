"""Makes buckets of what the settings say, where the extra for them is installed."""

from __future__ import annotations

import importlib.util

from gateway.data_dir import StartError
from gateway.interfaces import Bucket
from gateway.object_url import ObjectUrl


async def open_bucket(place: ObjectUrl, *, setting: str) -> Bucket:
    """The bucket that a setting names; whoever opens it closes it. Nothing is asked of it yet.

    Args:
        place: bucket and prefix.
        setting: whose it is, for the sentence, e.g. "GATEWAY_STORAGE_URL".

    Raises:
        StartError: the package for it is missing, or there are no credentials.
    """
    if importlib.util.find_spec("boto3") is None:
        raise StartError(f"{setting} needs boto3: pip install 'comfygate[s3]'.")
    from gateway.objects.s3 import S3Bucket
    from gateway.objects.session import NoCredentialsFoundError

    try:
        return await S3Bucket.open(place)
    except NoCredentialsFoundError as error:
        raise StartError(
            f"{setting} is set, and {error}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or whatever else boto3 "
            "reads them from."
        ) from error
