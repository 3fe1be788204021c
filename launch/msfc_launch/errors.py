"""What keeps a launch from being what was asked for."""


class LaunchError(ValueError):
    """Something is wrong or missing, and nothing is started; the message is one sentence."""
