"""The atelier: a generated sample data set of drawn instruments, scenes and paintings."""
