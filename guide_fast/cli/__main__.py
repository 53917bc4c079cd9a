"""`python -m guide_fast.cli` is `guide-fast`."""

import sys

from guide_fast.cli.app import main

sys.exit(main())
