"""The command ``msfc``, one file a subcommand: commands parse and show, the library works."""
