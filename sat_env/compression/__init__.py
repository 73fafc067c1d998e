"""Compression of the activations that travel between satellites.

`table` (numpy only) says what each level costs and is all that an environment needs; `codec`, `network`,
`measure` and `train` (torch) are where its figures come from.
"""

from sat_env.compression.table import CompressionTable, Level, load_table, table_names

__all__ = ["CompressionTable", "Level", "load_table", "table_names"]
