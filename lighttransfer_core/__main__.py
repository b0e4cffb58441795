"""`python -m lighttransfer_core`."""

from __future__ import annotations

from lighttransfer_core.command_line import main

if __name__ == "__main__":
    main()
