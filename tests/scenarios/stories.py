"""All stories."""

from tests.scenarios.healthy import HEALTHY
from tests.scenarios.leaks import LEAKS
from tests.scenarios.mechanisms import MECHANISMS

STORIES = (*LEAKS, *HEALTHY, *MECHANISMS)
