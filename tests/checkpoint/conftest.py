import sys
from pathlib import Path

# pytest imports each test file by its path, so what they share is found like this.
sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))
# The models of transformers that the backbone is held against.
sys.path.append(str(Path(__file__).parents[1] / "backbone"))
