"""The networks that compress a pyramid and rebuild it. They know nothing of packets."""
