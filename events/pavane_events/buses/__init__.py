"""The adapters of the bus: memory, sqlite, and (with the extra ``kafka``) Kafka."""
