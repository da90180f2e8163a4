"""Every public name is documented: arguments, what comes back, what is raised, and each field."""

import griffe
import pytest
from griffe import DocstringSectionKind as Section
from tests.support.paths import ROOT

import quatrain


@pytest.fixture(scope="module")
def package() -> griffe.Object:
    loader = griffe.GriffeLoader(search_paths=[str(ROOT / "src")], docstring_parser="google")
    loaded = loader.load("quatrain")
    loader.resolve_aliases()
    return loaded


def _sections(documented: griffe.Object, kind: Section) -> list:
    assert documented.docstring, documented.path
    return [one for one in documented.docstring.parsed if one.kind is kind]


def _named(documented: griffe.Object, kind: Section) -> list[str]:
    return [item.name for section in _sections(documented, kind) for item in section.value]


FUNCTIONS = [name for name in quatrain.__all__ if name[0].islower()]
CLASSES = [name for name in quatrain.__all__ if name[0].isupper()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_and_raises(package: griffe.Object, name: str) -> None:
    function = _function(package, name)
    arguments = [parameter.name for parameter in function.parameters]
    assert _named(function, Section.parameters) == arguments
    (raised,) = _sections(function, Section.raises)
    assert str(raised.value[0].annotation) == "InputError"


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_what_its_fields_are(package: griffe.Object, name: str) -> None:
    documented = package[name]
    fields = getattr(getattr(quatrain, name), "__dataclass_fields__", {})
    assert documented.docstring
    if fields:
        assert _named(documented, Section.attributes) == list(fields)


def _function(package: griffe.Object, name: str) -> griffe.Object:
    """Of a module and a function of one name (`checkpoint.open`), the function."""
    found = package[name]
    return found[name] if found.is_module else found
