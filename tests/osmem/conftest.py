import sys
from pathlib import Path

# The tests of this room share a comparison and a list of mutants.
sys.path.insert(0, str(Path(__file__).parent))
