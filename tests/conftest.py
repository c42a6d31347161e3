"""Settings of all tests: examples are searched for by count, never by the clock of a busy machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("cloche", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cloche")
