"""The tying table: every tying of six layers, trained, so that a controller is judged in seconds. No torch."""

from tying_env.table.file import PACKAGED, CorpusTable, TyingTable, open_table, write_table

__all__ = ["PACKAGED", "CorpusTable", "TyingTable", "open_table", "write_table"]
