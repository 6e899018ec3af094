"""The `iqdb` command. It stands on `iqdb_core`, and is the only place that prints, reads stdin or exits."""
