#!/usr/bin/env python
"""Manage the Retro Guestbook: ``python example_project/manage.py migrate``, from wherever you are."""

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    # Python puts the directory of this file first, but the project is imported by its full name.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    execute_from_command_line(sys.argv)
