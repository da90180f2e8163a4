"""The figures of a release: how good its programs are, its layers, how fast it is."""
