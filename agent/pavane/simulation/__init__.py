"""Simulation: agents, coordinator and a bus in one thread, on virtual time, with faults where a history says so."""
