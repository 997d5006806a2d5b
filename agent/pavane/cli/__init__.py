"""The command line: one noun per module. What is slow to import is imported by the command that needs it."""
