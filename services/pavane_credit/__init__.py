"""The reference application: five credit agents and their saga, on real applications."""
