"""Records and vectors on their way in: .npy, Parquet and JSON lines, from files, FIFOs and stdin."""
