"""For all tests: real servers, and properties held to what they say, not to how long a busy machine takes over an example."""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["support.servers", "support.kafka", "support.jaeger", "support.mlflow", "support.parallel"]

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
