"""The engine: models, versions, queues, batches, workers. It knows no protocol, no socket and no process."""
