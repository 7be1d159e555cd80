"""How much of the space of two objectives a set of genomes covers.

    H = area of the union over all points p of the rectangles from the reference r to p          both objectives are maximised

Points are sorted by the first objective, the largest first; each adds the strip by which its second objective exceeds those
before it.

Source: E. Zitzler and L. Thiele, PPSN V, 292 (1998).
"""

from __future__ import annotations

from collections.abc import Iterable

Point = tuple[float, float]


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """Return the area between the reference and the points that exceed it in both objectives.

    >>> hypervolume([(2, 1), (1, 2), (1, 1)], (0, 0))
    3.0
    """
    area, reached = 0.0, reference[1]
    for first, second in sorted(points, reverse=True):
        if first > reference[0] and second > reached:
            area += (first - reference[0]) * (second - reached)
            reached = second
    return area
