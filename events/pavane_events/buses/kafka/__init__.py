"""The Kafka adapter. It needs ``pavane[kafka]``; nothing outside this package imports aiokafka."""
