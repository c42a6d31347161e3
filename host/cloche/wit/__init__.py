"""WIT: the types, functions and interfaces of the component model, as frozen values."""
