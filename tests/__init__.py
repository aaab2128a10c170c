"""The tests, a package so that tests/graphsurgery is never taken for graphsurgery itself."""
