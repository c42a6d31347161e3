"""What runs scripts inside the component. The names of a script's own modules are never ours."""
