"""A fuzzer: mutants of small models in many dialects, each given to one command, which may refuse it and no more."""
