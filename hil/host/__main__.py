"""python -m hil.host: started by a trainer, see the package."""

from __future__ import annotations

from hil.child import deaf, importing

if __name__ == "__main__":
    deaf()  # before the slow imports
    from hil.host.starter import starter

    starts = starter()  # it imports torch meanwhile, in a process of its own
    with importing():
        from hil.host.process import run

    run(starts)
