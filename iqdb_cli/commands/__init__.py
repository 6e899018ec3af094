"""One command a module: each has a function `command`, and is imported only when it is asked for."""
