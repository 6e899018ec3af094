"""The index kinds behind one protocol: arrays in, arrays out; no file, no lock, no filter."""
