"""The transaction log of a local Delta table as files: entries, torn commits, kept rows, syncing.

`lake/storage` and `lake/recovery` import from here; these modules import the error classes of the
package and nothing else of it.
"""
