"""Requests that schemathesis makes of the server's own description, right and wrong ones."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from tests.support.pages.servers import served
from tests.support.thorough import thorough

from quatrain.serve.models.served_models import ServedModel

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.allow_header_conformance,
    checks.ignored_auth,
]
# What a schema cannot say of a request, and a model does.
OF_THE_MODEL = (
    "the prompt has", "is not in the vocabulary", "stream_options: is only", "top_logprobs: needs",
    "max_completion_tokens is", "its chat template", "tools: the chat template", "].tool_calls: ",
    "].tool_call_id: belongs", "].content: is missing", "parallel_tool_calls: false",
)  # fmt: skip
KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def schema(models: list[ServedModel]) -> Iterator[schemathesis.BaseSchema]:
    with served(models[:3], api_key="secret") as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize("examples", [8, *thorough([150])])
@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_answers_are_as_described(
    schema: schemathesis.BaseSchema,
    path: str,
    mode: schemathesis.GenerationMode,
    examples: int,
) -> None:
    @given(case=schema[f"/v1/{path}"]["POST"].as_strategy(generation_mode=mode))
    @settings(max_examples=examples, phases=[Phase.generate], deadline=None, database=None,
              derandomize=True, suppress_health_check=list(HealthCheck))  # fmt: skip
    def asked(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(headers=KEY, checks=CHECKS)
        if mode is schemathesis.GenerationMode.POSITIVE and answer.status_code == 400:
            message = answer.json()["error"]["message"]
            assert any(known in message for known in OF_THE_MODEL), (case.body, message)

    asked()


def test_the_description_is_one_of_openapi(schema: schemathesis.BaseSchema) -> None:
    schema.validate()
    for path in ("/v1/models", "/metrics"):
        schema[path]["GET"].Case().call_and_validate(headers=KEY, checks=CHECKS)
