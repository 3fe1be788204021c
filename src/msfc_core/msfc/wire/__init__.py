"""What crosses the link, as ``docs/wire-format.md`` defines it. NumPy only, never torch."""
