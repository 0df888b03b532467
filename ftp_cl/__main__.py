"""`python -m ftp_cl` and `torchrun -m ftp_cl`: the command line."""

import sys

from ftp_cl.cli import main

sys.exit(main())
