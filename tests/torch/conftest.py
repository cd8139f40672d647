"""These tests run in an environment with torch (tests/live/torch_environment.py); elsewhere there are none."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]
