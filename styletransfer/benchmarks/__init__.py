"""One file for each verb of ``tools/benchmark.py`` on style transfer."""
