"""One file per verb: it declares the verb's options, calls one public function, and prints.

Nothing heavy (torch, executorch) is imported before a verb runs, so that `--help` is instant.
"""
