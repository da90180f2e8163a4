import sys
from pathlib import Path

# pytest imports each test file by its path, so what they share is found like this.
sys.path.insert(0, str(Path(__file__).parent))
