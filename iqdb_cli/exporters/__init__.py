"""Records to files that an import reads back exactly."""
