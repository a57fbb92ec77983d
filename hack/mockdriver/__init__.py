"""A COSI driver that can be told to misbehave: a real gRPC server in its own process."""
