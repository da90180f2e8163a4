"""One file per command: it declares the command's options, calls one public function, and prints.

Nothing heavy (torch, executorch) is imported before a command runs, so that `--help` is instant.
"""
