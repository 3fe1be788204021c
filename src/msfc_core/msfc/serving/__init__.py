"""Decoder and heads as a service of several replicas, and what sends packets there."""
