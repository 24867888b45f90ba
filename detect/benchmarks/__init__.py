"""One file for each verb of ``tools/benchmark.py``, with ``add_arguments`` and ``run``."""
