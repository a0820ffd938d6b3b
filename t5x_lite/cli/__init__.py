"""The command line: flags, gin files, errors of one line, and the set-up of JAX. The only package that knows gin."""
