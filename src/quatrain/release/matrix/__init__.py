"""Several releases at once: models x methods x schemes."""
