"""The suite of properties stands in a module of its own; its assertions are to say what they found."""

import pytest

pytest.register_assert_rewrite("conformance")
