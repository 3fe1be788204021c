"""What the launch files share: arguments spelt as nav2's, checks before anything starts, nodes."""
