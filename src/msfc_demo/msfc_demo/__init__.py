"""The demo: camera, edge and cloud as processes, and a table of what passes between them."""
