"""The shipped models, a folder each, and which of them is meant where nobody names one."""

DEFAULT_MODEL = 'tabletop'
