"""Accelerators for Cloche: what WebAssembly cannot do itself, for plugins that are granted it.

This version finds the devices, for `cloche doctor`; the capabilities `cloche:accel/tensor` and `cloche:accel/nvml` will
join the host through the same entry points as any third party's.
"""
