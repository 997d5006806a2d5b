"""Real servers on this machine without Docker, for development and tests: what they need, where they are kept."""
