"""A server on this machine for what a page cannot do by itself: run the model again, edited.

It listens on 127.0.0.1 alone and refuses requests for other hosts or from other sites, so that no page of the
web can reach it through a browser.
"""

import json
import math
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import torch
from transformers import PreTrainedModel

from . import measures
from .edit import MemoryEdit, delete_from_text
from .page import page_html
from .record import MemoryRecord
from .slot_scan import SlotStatistics
from .trace import candidate_raw_values, logit_blocks, logits_of, residual_of, token_losses, trace

ADDRESS = "127.0.0.1"
# Bytes of a question, and candidates that one may ask for.
LONGEST_QUESTION, MOST_CANDIDATES = 2**20, 200
TOP_TOKENS = 10


class LiveModel:
    """Answers the questions of a page about a recorded text, by running the model again."""

    def __init__(self, model: PreTrainedModel, record: MemoryRecord):
        self.model, self.record = model.eval(), record
        self.token_ids: list[int] = record.tensors["token_ids"].tolist()

    @torch.no_grad()
    def edit(self, question: dict[str, Any]) -> dict[str, Any]:
        """Losses and likely tokens of the text with pairs deleted or added, slots left out, units ablated, or
        tokens taken out.

        Args:
            question (`dict`): lists `deletions` of `{layer, unit, pairs}` (`null`: all), `additions` of
                `{layer, unit, after, came}`, `removals` of `{layer, unit, slots}`, `ablations` of `{memory,
                layer, unit, how}` (mean or zero), and `without`, of tokens.

        Raises:
            ValueError: for what the text or the model has not.
        """
        without = question.get("without", [])
        token_ids = delete_from_text(self.token_ids, without)
        kept = [place for place in range(len(self.token_ids)) if place not in set(without)]
        if not token_ids:
            raise ValueError("without: nothing is left of the text")
        edit = self._read_edit(question, {place: number for number, place in enumerate(kept)})
        ids_T = torch.tensor(token_ids, device=self.model.device)
        with edit.applied(self.model):
            residual_TC = residual_of(self.model, ids_T)
        loss_T = token_losses(self.model, residual_TC, ids_T)
        tops = [
            logits_nV.log_softmax(-1).topk(min(TOP_TOKENS, logits_nV.shape[-1]))
            for _, logits_nV in logit_blocks(self.model, residual_TC)
        ]
        top_ids = torch.cat([top.indices for top in tops]).tolist()
        return {
            "positions": kept,
            "loss": loss_T.tolist(),
            "mean_loss": loss_T.nanmean().item(),
            "recorded_mean_loss": self.record.tensors["loss"].nanmean().item(),
            "top_ids": top_ids,
            "top_logprobs": torch.cat([top.values for top in tops]).tolist(),
            "top_texts": [[self.record.token_text(token_id) for token_id in ids] for ids in top_ids],
        }

    def _read_edit(self, question: dict[str, Any], place_of: dict[int, int]) -> MemoryEdit:
        """The edit that a question describes; `place_of` gives the places of tokens that are left."""
        edit = MemoryEdit()
        for deletion in question.get("deletions", []):
            pairs = [place_of[pair] for pair in deletion["pairs"] if pair in place_of]
            edit.delete(layer=deletion["layer"], unit=deletion["unit"], pairs=pairs)
        for addition in question.get("additions", []):
            self._add(edit, **addition)
        for removal in question.get("removals", []):
            edit.delete_slots(**removal)
        for ablation in question.get("ablations", []):
            memory, layer, unit, how = (ablation[name] for name in ("memory", "layer", "unit", "how"))
            if how not in ("mean", "zero"):
                raise ValueError(f"how must be mean or zero, not {how!r}")
            self.record.check_unit(layer, unit, memory)
            answer = self.record.ablated_answer(layer, unit, memory, len(place_of)) if how == "mean" else None
            edit.ablate(layer=layer, unit=unit, answer=answer, memory=memory)
        return edit

    def _add(self, edit: MemoryEdit, layer: int | None, unit: int | None, after: int, came: int) -> None:
        """Adds the pair that units would have stored, had `came` come after a token of the text."""
        if not 0 <= after < len(self.token_ids) or not 0 <= came < self.model.config.vocab_size:
            raise ValueError(
                f"after must lie in [0, {len(self.token_ids)}) and came in [0, "
                f"{self.model.config.vocab_size}), not {after} and {came}"
            )
        ids_T = torch.tensor([*self.token_ids[: after + 1], came], device=self.model.device)
        heard = trace(self.model, ids_T, num_own=1)
        for number in range(self.record.num_layers) if layer is None else [layer]:
            self.record.check_unit(number, unit or 0)
            found = heard.listen(number)
            for head in range(self.record.num_units) if unit is None else [unit]:
                key_D, value_D = found.keys_HTD[head, after], found.values_HtD[head, after]
                edit.add(layer=number, unit=head, key=key_D, value=value_D)

    @torch.no_grad()
    def candidates(self, question: dict[str, Any]) -> dict[str, Any]:
        """The likeliest next tokens after a token, by how near their targets are to a unit's answer there.

        Args:
            question (`dict`): `layer`, `unit`, `token`, and the `count` of candidates.

        Raises:
            ValueError: for what the text or the model has not, or a token at which the memory is empty.
        """
        layer, unit, token, count = (int(question[name]) for name in ("layer", "unit", "token", "count"))
        self.record.check_unit(layer, unit)
        first = self.record.kinds[unit].youngest
        if not first <= token < len(self.token_ids) or not 0 < count <= MOST_CANDIDATES:
            raise ValueError(
                f"token must lie in [{first}, {len(self.token_ids)}) and count in [1, {MOST_CANDIDATES}], "
                f"not {token} and {count}"
            )
        ids_T = torch.tensor(self.token_ids, device=self.model.device)
        heard = trace(self.model, ids_T[: token + 1])
        probs_V = logits_of(self.model, heard.residual_TC[-1:])[0].softmax(-1)
        likely_K = probs_V.topk(min(count, len(probs_V))).indices.tolist()
        actual = self.token_ids[token + 1] if token + 1 < len(self.token_ids) else None
        ids = likely_K if actual is None or actual in likely_K else [*likely_K, actual]
        [raw_LHKD] = candidate_raw_values(
            self.model, ids_T, [token], [torch.tensor(ids, device=ids_T.device)]
        )
        layer_trace = heard.listen(layer)
        scores_K = measures.candidate_scores(
            layer_trace.answers_HTD[unit, -1:].float(),
            layer_trace.raw_values_HTD[unit, -1:].float(),
            raw_LHKD[layer, unit],
            self.record.tensors["contextual.mix"][layer, unit].to(ids_T.device),
        )[0]
        found = [
            {
                "id": token_id,
                "text": self.record.token_text(token_id),
                "probability": probs_V[token_id].item(),
                "score": score,
            }
            for token_id, score in zip(ids, scores_K.tolist(), strict=True)
        ]
        return {"candidates": sorted(found, key=lambda one: -one["score"]), "actual": actual}


def make_server(
    model: PreTrainedModel,
    record: MemoryRecord,
    *,
    compare: MemoryRecord | None = None,
    slots: SlotStatistics | None = None,
    port: int = 0,
) -> ThreadingHTTPServer:
    """A server of the record's page on 127.0.0.1, which also answers its questions by running the model.

    Args:
        model (`PreTrainedModel`): the model that was recorded.
        record (`MemoryRecord`): what it did on a text.
        compare (`MemoryRecord`, *optional*): another record, shown beside this one.
        slots (`SlotStatistics`, *optional*): the model's persistent slots over many texts.
        port (`int`): of the address; any free one if 0. `server_address` tells which.

    Returns:
        `ThreadingHTTPServer`: call its `serve_forever`.
    """
    page = page_html(record, compare=compare, slots=slots, serve=True).encode()
    live, lock = LiveModel(model, record), Lock()

    class Handler(_Handler):
        def answer(self) -> None:
            if self.command == "GET" and self.path in ("/", "/index.html"):
                self.send(HTTPStatus.OK, page, "text/html; charset=utf-8")
            elif self.command == "GET" and self.path == "/api/status":
                self.send_json(HTTPStatus.OK, {"model": record.model_name, "tokens": record.num_tokens})
            elif self.command == "POST" and self.path in ("/api/edit", "/api/candidates"):
                ask = live.edit if self.path == "/api/edit" else live.candidates
                with lock:
                    self.send_json(HTTPStatus.OK, ask(self.read_question()))
            else:
                self.send_json(HTTPStatus.NOT_FOUND, {"error": f"{self.command} {self.path}: not found"})

    return ThreadingHTTPServer((ADDRESS, port), Handler)


class _Handler(BaseHTTPRequestHandler):
    """Refuses other hosts and sites, and turns what is wrong with a question into an answer that says so."""

    def do_GET(self) -> None:
        own = [f"{name}:{self.server.server_address[1]}" for name in (ADDRESS, "localhost")]
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in own or origin not in (None, *(f"http://{host}" for host in own)):
            self.send_json(HTTPStatus.FORBIDDEN, {"error": "only pages of this server may ask it"})
            return
        try:
            self.answer()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.send_json(HTTPStatus.BAD_REQUEST, {"error": f"{type(error).__name__}: {error}"})

    do_POST = do_GET

    def read_question(self) -> dict[str, Any]:
        """The JSON object that was sent; other sites cannot send that type without being asked first."""
        length = int(self.headers.get("Content-Length", 0))
        if self.headers.get_content_type() != "application/json" or not 0 < length <= LONGEST_QUESTION:
            raise ValueError(f"a question must be JSON of at most {LONGEST_QUESTION:,} bytes")
        return json.loads(self.rfile.read(length))

    def send_json(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self.send(status, json.dumps(_without_nan(content)).encode(), "application/json")

    def send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        """Prints nothing: the terminal shows the address."""


def _without_nan(content: Any) -> Any:
    """The same with `None` for numbers that JSON lacks."""
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
