"""Call stack: finds the object whose method has called what runs now, where mmengine passes no reference to it."""

from __future__ import annotations

import sys
from typing import Any


def calling(method: str, kind: type) -> Any:
    """Return the innermost object of a class that is in a method of this name; None if there is none.

    Args:
        method: Name of the method.
        kind: Class of the object.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == method and isinstance(frame.f_locals.get('self'), kind):
            return frame.f_locals['self']
        frame = frame.f_back
    return None
