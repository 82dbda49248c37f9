"""What a process and its descendants have used of the machine, as Linux tells it."""

import os
import re
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def read_stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on: the name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def list_tree(root: int) -> list[int]:
    """*root* and all that descends from it."""
    children: dict[int, list[int]] = defaultdict(list)
    for pid in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        with suppress(OSError):  # It has ended meanwhile.
            children[int(read_stat(pid)[1])].append(pid)
    tree = [root]
    for pid in tree:
        tree += children[pid]
    return tree


def cpu_seconds(root: int) -> float:
    """Processor seconds, user's and system's, of a process and its descendants, those that have ended included."""
    ticks = 0
    for pid in list_tree(root):
        with suppress(OSError):
            # utime, stime, and the same of children that were waited for
            ticks += sum(int(field) for field in read_stat(pid)[11:15])
    return ticks / TICKS


def peak_memory(root: int) -> float:
    """The most megabytes of memory that each of them has had, added up."""
    kilobytes = 0
    for pid in list_tree(root):
        with suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
            kilobytes += int(found[1]) if found else 0
    return kilobytes / 1024
