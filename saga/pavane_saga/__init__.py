"""What is undone: facts, the pure engine, the coordinator, and the checks."""
