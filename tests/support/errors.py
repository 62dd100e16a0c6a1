"""Messages of the errors that bad input raises."""

from collections.abc import Callable
from typing import Any

import pytest

from extremal import ExtremalError


def message_of(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    """Call, expect an `ExtremalError`, and return its message."""
    with pytest.raises(ExtremalError) as error:
        call(*args, **options)
    return str(error.value)
