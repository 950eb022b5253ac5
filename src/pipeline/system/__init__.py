"""What touches the operating system: files, locks, signals, processes. Imports nothing else of the project."""
