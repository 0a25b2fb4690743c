"""What is particular to a lake in an S3-compatible object store.

How its client behaves, what its answers mean, and whether it can be shared. Where these modules do
not apply, a table in a store and one in a folder are the same to the rest of the package.
"""
