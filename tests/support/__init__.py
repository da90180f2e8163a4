"""What tests share: writers of tiny models and programs, and references to hold them against."""
