"""All stories."""

from tests.scenarios.healthy import HEALTHY
from tests.scenarios.leaks import LEAKS

STORIES = (*LEAKS, *HEALTHY)
