"""What the processes agree on: errors, geometry, classes, settings, the job folder, the protocol, and the client of a worker. No torch."""
