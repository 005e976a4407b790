"""``python -m recflow``."""

import sys

from recflow.cli import main

sys.exit(main())
