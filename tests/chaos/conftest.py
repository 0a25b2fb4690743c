"""The chaos is a program too: its modules import each other by their bare names."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "integration" / "lake")]
