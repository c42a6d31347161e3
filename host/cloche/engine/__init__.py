"""The engine room: configuration, compiling, linking, stores, values and traps. The only room that knows wasmtime."""
