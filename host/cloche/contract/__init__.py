"""Whether a component's imports and exports fit the host: versions, types and grants, before anything is compiled."""
