"""Object storage that speaks S3. Imported by ``storage_builder.py`` only; others know ``interfaces.Bucket``.

boto3 is an extra (``pip install 'comfygate[s3]'``): nothing here is imported where no storage is configured.
"""
