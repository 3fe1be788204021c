"""The measurements of the paper: each a function from models and data to tables and plots."""
