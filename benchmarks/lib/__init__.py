"""What the benchmarks share: measuring processes, naming the machine, keeping figures."""
