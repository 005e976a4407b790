"""Makes a stranger's distribution visible, as if it were installed: its metadata lies beside it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "stranger"))
