"""Files and bytes: the snapshot, the log, their columns and codecs. Knows nothing of an index."""
