"""The HTTP server: answers of the runs under load, limits with one JSON error each, an end that loses nothing."""

import json
import re
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import PIPE

import forked
import pytest

import peftbench
from peftbench.commands import serve
from peftbench.errors import UserError
from peftbench.runs.record import Record
from peftbench.serving import MultiTask
from peftbench.serving.predictor import NO_ANSWER
from peftbench.serving.request_batcher import QueueFullError, RequestBatcher

httpx = pytest.importorskip("httpx", reason="needs httpx")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("prometheus_client", reason="needs the extra serve")

TEXTS = ["the film was good", "a dull and bad plot", "the plot is fine but dull", "good"]


@contextmanager
def served(tasks: MultiTask, **limits: float) -> Iterator[str]:
    """A server in a thread; yields its address."""
    from peftbench.serving.server import Limits, make_server

    server = make_server(tasks, Limits(**{"rows": 8, "characters": 200, "queue": 1000, **limits}))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that an unread answer is soon noticed
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "the server ends"


@pytest.fixture(scope="module")
def tasks(task_runs: dict[str, Record]) -> MultiTask:
    return MultiTask(task_runs, device="cpu", batch_size=16)


@pytest.fixture(scope="module")
def address(tasks: MultiTask) -> Iterator[str]:
    with served(tasks) as address:
        yield address


@pytest.fixture(scope="module")
def alone(task_runs: dict[str, Record]) -> Callable:
    """What a run answers by itself, as the server would tell it."""
    found: dict = {}

    def answer(task: str, text) -> dict:
        if (task, str(text)) not in found:
            told = peftbench.load(task_runs[task].folder, device="cpu").predict([text])[0]
            found[task, str(text)] = told
        return found[task, str(text)]

    return answer


def check(told: dict, alone: Callable, row: dict) -> None:
    expected = alone(row["task"], row["text"])
    assert told["task"] == row["task"]
    if expected.probabilities:
        assert told["label"] == expected.prediction
        assert told["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    else:
        assert told["score"] == pytest.approx(expected.prediction, abs=1e-5)


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_answers_as_the_runs_do_under_load(address: str, alone: Callable, concurrency: int) -> None:
    single = ["lora", "lora_again", "adapter", "prefix", "prompt", "bitfit", "head", "mam"]
    requests = []
    for number in range(max(8, concurrency)):
        rows = [{"task": single[(number + i) % len(single)], "text": TEXTS[(number * i) % 4]} for i in range(3)]
        rows.append({"task": ("pairs", "scores")[number % 2], "text": [TEXTS[number % 4], "a film"]})
        requests.append(rows)
    with httpx.Client(base_url=address, timeout=60) as client, ThreadPoolExecutor(concurrency) as pool:
        answers = list(pool.map(lambda rows: client.post("/predict", json={"rows": rows}), requests))
    for answer, rows in zip(answers, requests, strict=True):
        assert answer.status_code == 200, answer.text
        assert answer.json()["seconds"] > 0
        for told, row in zip(answer.json()["answers"], rows, strict=True):
            check(told, alone, row)


def test_health_and_metrics(tasks: MultiTask) -> None:
    with served(tasks) as address, httpx.Client(base_url=address) as client:
        assert client.get("/health").json() == {"status": "ok", "tasks": list(tasks.tasks)}
        client.post("/predict", json={"rows": [{"task": "lora", "text": "good"}, {"task": "lora", "text": "bad"}]})
        client.post("/predict", json={"rows": [{"task": "none", "text": "good"}]})
        told = client.get("/metrics").text
    for line in (
        'peftbench_requests_total{status="200"} 1.0',
        'peftbench_requests_total{status="422"} 1.0',
        'peftbench_rows_total{task="lora"} 2.0',
        "peftbench_batch_rows_sum 2.0",
        "peftbench_queue_rows 0.0",
        "peftbench_request_seconds_count 1.0",
    ):
        assert line in told.splitlines()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (413, {"rows": [{"task": "lora", "text": "good"}] * 9}, "9 rows, at most 8"),
        (413, {"rows": [{"task": "lora", "text": "x" * 201}]}, "201 characters, at most 200"),
        (413, {"rows": [{"task": "lora", "text": "x" * 20_000}]}, "larger than"),
        (422, {"rows": [{"task": "lore", "text": "good"}]}, "no task 'lore' is registered. Did you mean"),
        (422, {"rows": [{"task": "pairs", "text": "good"}]}, "task pairs takes pairs of texts"),
        (422, {"rows": [{"task": "lora", "text": ["a", "b", "c"]}]}, "task lora takes texts"),
        (422, {"rows": [{"task": "lora"}]}, "rows.0.text: Field required"),
        (422, {"rows": [{"task": "lora", "text": "good", "label": 1}]}, "rows.0.label: Extra"),
        (422, {"rows": "good"}, "rows: Input should be a valid array"),
        (422, [], "the body: Input should be an object"),
        (422, b"{", "the body: Invalid JSON"),
        (422, b"\xff\xfe", "the body: Invalid JSON"),
        (422, rb'{"rows": [{"task": "lora", "text": "\ud800"}]}', ""),
    ],
)
def test_a_mistake_is_one_json_error(address: str, status: int, body, said: str) -> None:
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = httpx.post(f"{address}/predict", **sent)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(("path", "status", "said"), [("predict", 413, "larger than"), ("nothing", 404, "Not Found")])
def test_a_large_request_on_a_connection_that_closes_reads_its_refusal(
    address: str, path: str, status: int, said: str
) -> None:
    """As urllib sends it: the answer must not be lost with the part of the request that still comes."""
    asked = urllib.request.Request(f"{address}/{path}", data=b"x" * 16_000_000)  # more than sockets hold
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(asked, timeout=60)
    assert raised.value.code == status
    assert said in json.load(raised.value)["error"]


def test_a_client_that_stalls_in_a_large_request_is_told_that_it_is_too_large(tasks: MultiTask) -> None:
    with served(tasks, seconds=0.2) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n" + b"x" * 40_000)
            assert client.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_client_that_stalls_is_refused_and_the_server_can_end(tasks: MultiTask) -> None:
    with served(tasks, seconds=0.2) as address:
        host, port = address.removeprefix("http://").split(":")
        client = socket.create_connection((host, int(port)), timeout=60)
        client.sendall(b'POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{"rows"')
        while come(httpx.get(f"{address}/metrics").text) < 1:
            time.sleep(0.01)
    with client:  # which the server has not waited for
        told = client.makefile("rb").read()
    assert told.startswith(b"HTTP/1.1 408")
    assert b"the request did not come whole within 0.2 s" in told


@pytest.mark.parametrize(("answered", "sent"), [(False, b""), (False, b"GET / HTTP/1.1\r\nHost: h"), (True, b"GET /")])
def test_a_client_that_never_ends_its_head_is_dropped(tasks: MultiTask, answered: bool, sent: bytes) -> None:
    with served(tasks, seconds=0.2) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            if answered:
                client.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
            client.sendall(sent)
            while client.recv(1000):  # the rest of the answer; then the connection ends
                pass


def test_a_client_that_leaves_is_no_failure_of_the_server(tasks: MultiTask) -> None:
    with served(tasks) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b'POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{"rows"')
        while not (counted := re.findall(r'requests_total\{status="(\d+)"\}', httpx.get(f"{address}/metrics").text)):
            time.sleep(0.01)
    assert counted == ["400"]


def test_a_run_that_was_damaged_is_the_server_s_failure(task_runs: dict[str, Record], tmp_path) -> None:
    folder = task_runs["lora"].folder
    record = Record(shutil.copytree(folder, tmp_path / folder.name))
    with served(MultiTask({"lora": record}, device="cpu")) as address:
        path = record.adapter_dir / "adapter.safetensors"
        path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
        answer = httpx.post(f"{address}/predict", json={"rows": [{"task": "lora", "text": "good"}]})
    assert answer.status_code == 500 and "damaged" in answer.json()["error"]


def test_a_client_that_does_not_read_its_answer_is_dropped_and_the_server_can_end(tasks: MultiTask) -> None:
    rows = [{"task": "lora", "text": ""}] * 20_000
    body = json.dumps({"rows": rows}).encode()
    with served(tasks, seconds=0.2, rows=len(rows), characters=10) as address:
        host, port = address.removeprefix("http://").split(":")
        client = socket.create_connection((host, int(port)), timeout=60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while come(httpx.get(f"{address}/metrics").text) < 1:
            time.sleep(0.01)
    with client:  # which the server has not waited for
        head, _, answer = client.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert len(answer) < int(re.search(rb"content-length: ([0-9]+)", head)[1])


def test_what_is_no_http_is_refused_in_json(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    for sent in (
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET /" + b"a" * 100_000,
    ):
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(sent)
            head, _, answer = client.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400") and b"content-type: application/json" in head
        assert json.loads(answer) == {"error": "Invalid HTTP request received."}
    assert httpx.get(f"{address}/health").status_code == 200


def test_other_paths_and_verbs(address: str) -> None:
    for answer, status in ((httpx.get(f"{address}/predict"), 405), (httpx.get(f"{address}/nothing"), 404)):
        assert answer.status_code == status
        assert answer.json()["error"].startswith("GET /")


def test_what_a_client_sends_is_cut_in_its_error(address: str) -> None:
    long = "k\nk" * 300
    for answer in (
        httpx.post(f"{address}/predict", json={"rows": [], long: 1}),
        httpx.post(f"{address}/predict", json={"rows": [{"task": long, "text": "good"}]}),
        httpx.get(f"{address}/{'k%0A' * 300}"),
        httpx.request("K" * 1000, f"{address}/predict"),
    ):
        error = answer.json()["error"]
        assert answer.status_code in (404, 405, 422) and len(error) < 300 and "\n" not in error and "k" in error.lower()


def test_a_websocket_is_refused_in_json(address: str, capfd: pytest.CaptureFixture) -> None:
    asked = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    answer = httpx.get(f"{address}/predict", headers={**asked, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert answer.status_code == 405 and answer.json() == {"error": "GET /predict: Method Not Allowed"}
    assert capfd.readouterr().err == ""


def test_nothing_asked_is_answered_with_nothing(address: str) -> None:
    assert httpx.post(f"{address}/predict", json={"rows": []}).json()["answers"] == []
    blank = httpx.post(f"{address}/predict", json={"rows": [{"task": "lora", "text": " "}]}).json()["answers"]
    assert blank == [{"task": "lora", "label": None, "probabilities": {}}]
    blank = httpx.post(f"{address}/predict", json={"rows": [{"task": "scores", "text": ["", "a film"]}]}).json()
    assert blank["answers"] == [{"task": "scores", "score": None}]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"queue": 4}, "3 rows wait already, at most 4 may"),
        ({"queue": 6, "rows": 6, "characters": 20}, "12 characters wait already, at most 20 may"),
    ],
)
def test_a_full_queue_says_so(tasks: MultiTask, monkeypatch: pytest.MonkeyPatch, limits: dict, said: str) -> None:
    go, busy = threading.Event(), threading.Event()
    predict = tasks.predict

    def slow(*asked):
        busy.set()
        go.wait(30)
        return predict(*asked)

    monkeypatch.setattr(tasks, "predict", slow)
    body = {"rows": [{"task": "lora", "text": "good"}] * 3}
    with served(tasks, **limits) as address, ThreadPoolExecutor(2) as pool:
        first = pool.submit(httpx.post, f"{address}/predict", json=body, timeout=60)
        assert busy.wait(30)
        second = pool.submit(httpx.post, f"{address}/predict", json=body, timeout=60)
        while "peftbench_queue_rows 3.0" not in httpx.get(f"{address}/metrics").text:
            time.sleep(0.01)
        refused = httpx.post(f"{address}/predict", json=body)
        go.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert said in refused.json()["error"]


def test_requests_are_answered_together_and_fail_apart() -> None:
    go, calls = threading.Event(), []

    def predict(examples, names):
        go.wait(30)
        calls.append(len(examples))
        if ("bad",) in examples:
            raise UserError("bad")
        return [NO_ANSWER] * len(examples)

    batcher = RequestBatcher(predict, 4, 100, 100, lambda rows: None)
    first = batcher.ask([("x",)], ["a"])
    while batcher.waiting:
        time.sleep(0.001)
    others = [batcher.ask([(text,)], ["a"]) for text in ("good", "bad", "good")]
    assert batcher.ask([("given up",)], ["a"]).cancel()
    large = batcher.ask([("good",)] * 7, ["a"] * 7)
    go.set()
    batcher.close()
    assert len(first.result()) == 1
    assert [len(others[0].result()), len(others[2].result()), len(large.result())] == [1, 1, 7]
    with pytest.raises(UserError, match="bad"):
        others[1].result()
    assert calls == [1, 3, 1, 1, 1, 7]
    with pytest.raises(QueueFullError, match="shutting down"):
        batcher.ask([("x",)], ["a"])


def come(metrics: str) -> float:
    """How many requests have come, answered or not."""
    names = ("peftbench_requests_in_progress ", "peftbench_requests_total{")
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(names))


def test_sigterm_ends_it_when_what_was_asked_is_answered(task_runs: dict[str, Record]) -> None:
    runs = [f"{name}={task_runs[name].folder}" for name in ("lora", "prefix")]
    line = ["-m", "peftbench", "serve", *runs, "--port", "0", "--device", "cpu"]
    with forked.Popen(line, stderr=PIPE, text=True) as server:
        said = server.stderr.readline()
        assert said.startswith("serving lora, prefix on http://127.0.0.1:"), said + server.stderr.read()
        address = said.split()[4].rstrip(",")
        body = {"rows": [{"task": ("lora", "prefix")[i % 2], "text": "the film was good " * 8} for i in range(200)]}
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(httpx.post, f"{address}/predict", json=body, timeout=60) for _ in range(8)]
            while come(httpx.get(f"{address}/metrics").text) < len(asked):
                time.sleep(0.01)
            server.send_signal(signal.SIGTERM)
            statuses = [answer.result().status_code for answer in asked]
        assert server.wait(60) == 0
        assert set(statuses) == {200}
        assert server.stderr.read() == ""
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def test_what_cannot_be_served(task_runs: dict[str, Record], monkeypatch: pytest.MonkeyPatch) -> None:
    lora = str(task_runs["lora"].folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for argv, said in (
            ([lora, str(task_runs["head"].folder)], "two runs are named text_file"),
            ([f"a={lora}", f"a={lora}"], "two runs are named a"),
            (["a=nothing-there"], "No run 'nothing-there'"),
            ([f"a={lora}", "--port", port], f"cannot listen on 127.0.0.1:{port}"),
            ([f"a={lora}", "--port", "70000"], "cannot listen on 127.0.0.1:70000"),
            ([f"a={lora}", "--host", "ü" * 70], f"cannot listen on {'ü' * 60}…:8000: "),
            ([f"a={lora}", "--host", "a\0b"], "cannot listen on a\0b:8000: "),
            ([f"a={lora}", "--device", "tpu"], "device=tpu"),
        ):
            with pytest.raises(UserError) as raised:
                serve.main(argv)
            assert said in str(raised.value)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "peftbench.serving.server", raising=False)
    with pytest.raises(UserError, match=r"pip install 'peftbench\[serve\]'"):
        serve.main([lora])
