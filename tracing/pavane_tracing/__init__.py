"""What is seen: one trace follows every message. Propagation, spans, their store, the tree, the continuity check."""
