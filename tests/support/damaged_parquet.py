"""A Parquet file with overwritten bytes, at which the reader of Polars panics."""

import io

import pyarrow.parquet as pq


def at_which_polars_panics(whole: bytes, column: str) -> bytes:
    """Overwrite a length in the levels of a column that has no value."""
    group = pq.ParquetFile(io.BytesIO(whole)).metadata.row_group(0)
    chunks = map(group.column, range(group.num_columns))
    [chunk] = [chunk for chunk in chunks if chunk.path_in_schema == column]
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    place = begin + chunk.total_compressed_size - 3
    return whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
