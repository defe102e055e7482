"""Clients that people use get whole and streamed answers: LangChain's chat model, curl."""

import json
import shutil
import subprocess

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from served_models import API_KEY
from surfaces import CHAT, CLINICAL, Surface

TURNS = [SystemMessage("Be brief."), HumanMessage("chest pain and dyspnea")]
BODY = {
    "model": "trained",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "chest pain and dyspnea"},
    ],
    "max_tokens": 8,
    "temperature": 0,
}


def test_langchains_chat_model_gets_the_same_answer_whole_and_streamed(surface: Surface) -> None:
    model = ChatOpenAI(
        model="trained",
        base_url=f"{surface.address}/v1",
        api_key=SecretStr(API_KEY),
        temperature=0,
        max_completion_tokens=8,
        max_retries=0,
        stream_usage=True,
    )
    expected = surface.post(CHAT, BODY).json()
    whole = model.invoke(TURNS)
    assert whole.content == expected["choices"][0]["message"]["content"]
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 8
    chunks = list(model.stream(TURNS))
    assert "".join(str(chunk.content) for chunk in chunks) == whole.content
    assert len([chunk for chunk in chunks if chunk.content]) > 1
    usages = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert [usage["output_tokens"] for usage in usages] == [8]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_a_whole_and_a_streamed_answer(surface: Surface) -> None:
    def curl(path: str, body: object) -> str:
        key = f"Authorization: Bearer {API_KEY}"
        command = ["curl", "-sSN", surface.address + path, "-H", key, "-d", json.dumps(body)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    expected = surface.post(CHAT, BODY).json()["choices"]
    assert json.loads(curl(CHAT, BODY))["choices"] == expected
    lines = [line for line in curl(CHAT, {**BODY, "stream": True}).splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines[:-1]]
    said = "".join(delta.get("content", "") for delta in deltas)
    assert said == expected[0]["message"]["content"]
    clinical = json.loads(curl(CLINICAL, {"note": "He has pain.", "task": "summarization"}))
    assert clinical["answer"]
