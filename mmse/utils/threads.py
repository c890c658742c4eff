"""How OpenMP's threads wait for each other on CPUs that other processes use as well.

By default GNU's OpenMP lets a thread spin at a barrier for some milliseconds before it sleeps.
While it spins, another process's thread, or the one that it waits for, has one core less.
"""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = 'GOMP_SPINCOUNT'
COUNT = '1000'
ROOT = Path(__file__).parents[1]
GPUS = ('/dev/nvidiactl', '/dev/kfd')


said: list[str] = []  # what was set, for the log of the run


def shorten_waits(environment: MutableMapping[str, str] = os.environ) -> None:
    """In mmse's tools, let threads spin for microseconds only; before torch is imported.

    What the user has set stays, and on machines with a GPU nothing is set.
    """
    given = any(name in environment for name in (VARIABLE, 'OMP_WAIT_POLICY'))
    script = Path(sys.argv[0]).resolve() if sys.argv and sys.argv[0] else Path()
    ours = script.parent in (ROOT.parent / 'tools', ROOT / '.mim' / 'tools')
    if given or not ours or 'torch' in sys.modules or any(map(os.path.exists, GPUS)):
        return
    environment[VARIABLE] = COUNT
    said.append(
        f'{VARIABLE}={COUNT} was set: threads that wait for each other leave the CPU to others '
        'sooner. Set the variable yourself to change that.'
    )
