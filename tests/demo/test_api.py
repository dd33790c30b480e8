"""The endpoints for programs, called as a program would."""

from __future__ import annotations

import ast
import asyncio
import zipfile

import httpx
import pytest

from demo import tasks
from tests.demo.conftest import serving

ENDPOINTS = {"methods", "forecast", "zero_shot", "tune", "predict", "compare", "regions", "ask", "export"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An app of its own: gradio writes a traceback of its own where it refuses a path."""
    with serving(tmp_path_factory.mktemp("app") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def client(server):
    from gradio_client import Client

    return Client(server, verbose=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten bolts and ten gears in a zip, and a photo of each that is not in it."""
    folder = tmp_path_factory.mktemp("photos")
    with zipfile.ZipFile(folder / "task.zip", "w") as archive:
        for label in ("bolt", "gear"):
            for k in range(1, 11):
                archive.write(tasks.SAMPLES / "hardware" / label / f"{k:02}.jpg", f"{label}/{k:02}.jpg")
    others = [str(tasks.SAMPLES / "hardware" / label / "11.jpg") for label in ("gear", "bolt")]
    return str(folder / "task.zip"), others


@pytest.fixture(scope="module")
def tuned(client, photos):
    from gradio_client import handle_file

    return client.predict(task=[handle_file(photos[0])], method="gda", shots=4, api_name="/tune")


def test_the_endpoints_are_named_and_nothing_else_is(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert {name.strip("/") for name in named} == ENDPOINTS
    assert not client.view_api(return_format="dict")["unnamed_endpoints"]
    assert "the zip that tune returned" in named["/predict"]["description"]


def test_from_photos_to_predictions(client, photos, tuned):
    from gradio_client import handle_file

    result, adapter = tuned
    assert result["method"] == "gda" and 0 <= result["accuracy"]["tuned"] <= 1
    found = client.predict(
        adapter=handle_file(adapter), images=[handle_file(photo) for photo in photos[1]], api_name="/predict"
    )
    assert [row["tuned"]["label"] for row in found["predictions"]] == ["gear", "bolt"]
    assert [row["image"] for row in found["predictions"]] == ["11.jpg", "11.jpg"]
    before = client.predict(task=[handle_file(photos[0])], api_name="/zero_shot")
    assert before["test"] == 20 and set(before["accuracy"]) == {"zero_shot", "zero_shot_ensemble"}


def test_methods_are_compared(client, photos):
    from gradio_client import handle_file

    job = client.submit(
        task=[handle_file(photos[0])], methods="gda,tip_adapter", shots="2", seeds="0", api_name="/compare"
    )
    found = job.result(timeout=300)
    assert {row["method"] for row in found["runs"]} == {"zero_shot_ensemble", "gda", "tip_adapter"}
    assert all("done" in moment or "stage" in moment for moment in job.outputs()[:-1])


def test_regions_forecast_and_export(client, photos, tuned):
    from gradio_client import handle_file

    found, marked = client.predict(image=handle_file(photos[1][0]), adapter=handle_file(tuned[1]), api_name="/regions")
    assert found["regions"] and {"zero_shot", "tuned"} <= set(found["regions"][0]) and marked.endswith(".png")
    planned = client.predict(method="lora", labels=5, api_name="/forecast")
    assert planned["trainable_parameters"] > 0 and planned["support"] == 40
    done, archive = client.predict(adapter=handle_file(tuned[1]), to="onnx", api_name="/export")
    assert any(name.endswith(".onnx") for name in zipfile.ZipFile(archive).namelist()), done


def test_ask_answers_in_each_way_and_shows_the_marks(client, photos, tuned):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    asked = {"image": handle_file(photos[1][0]), "question": "What is in mark 1?", "api_name": "/ask"}
    found, marked = client.predict(adapter=handle_file(tuned[1]), **asked)
    assert list(found["answers"]) == ["plain", "marked", "labelled"] and marked.endswith(".png")
    assert found["answers"]["labelled"]["told"].startswith("mark 1 is ")
    found, _ = client.predict(mark=False, **asked)
    assert list(found["answers"]) == ["plain"]
    with pytest.raises(AppError, match="no question"):
        client.predict(image=handle_file(photos[1][0]), question=" ", api_name="/ask")


@pytest.mark.parametrize(
    ("endpoint", "options", "sentence"),
    [
        ("/tune", {"method": "nothing"}, "There is no method 'nothing'"),
        ("/tune", {"backbone": "/etc"}, "no model"),
        ("/compare", {"shots": "two"}, "whole numbers"),
        ("/tune", {"labels": "bolt"}, "label"),
    ],
)
def test_a_mistake_gets_its_sentence(client, photos, endpoint, options, sentence):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=sentence):
        client.predict(task=[handle_file(photos[0])], api_name=endpoint, **options)


def test_files_of_the_server_cannot_be_named(server, photos):
    """A path in the place of an upload is refused before anything is read."""
    there = {"path": photos[1][0], "meta": {"_type": "gradio.FileData"}}
    asked = httpx.post(f"{server}gradio_api/call/regions", json={"data": [there, "bolt, gear", None, "objects"]})
    heard = httpx.get(f"{server}gradio_api/call/regions/{asked.json()['event_id']}", timeout=60).text
    assert "event: error" in heard and "event: complete" not in heard


def test_sentences_name_files_as_they_were_sent(client, tuned, tmp_path):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(AppError, match=r"label\. notes\.jpg is not an image"):
        client.predict(adapter=handle_file(tuned[1]), images=[handle_file(tmp_path / "notes.jpg")], api_name="/predict")


def test_a_model_reaches_the_same_by_mcp(server):
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamablehttp_client

    async def ask():
        address = f"{server}gradio_api/mcp/"
        async with streamablehttp_client(address) as (read, write, _), mcp.ClientSession(read, write) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            (forecast,) = [tool for tool in tools if tool.name.endswith("forecast")]
            answer = await session.call_tool(forecast.name, {"method": "linear_probe", "labels": 5})
            return {tool.name for tool in tools}, answer.content[0].text

    names, text = asyncio.run(ask())
    assert all(any(name.endswith(wanted) for name in names) for wanted in ENDPOINTS)
    assert ast.literal_eval(text)["method"] == "linear_probe"
