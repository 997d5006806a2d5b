"""What is said: events, their envelope and contracts, and the bus they travel on."""
