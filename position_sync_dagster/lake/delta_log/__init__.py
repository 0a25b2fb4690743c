"""The transaction log of a local Delta table as files: names, entries, torn commits, syncing.

`lake/storage` and `lake/recovery` import from here; these modules import the error classes of the
package and nothing else of it.
"""
