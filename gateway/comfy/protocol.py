"""What an upstream said, and what to ask it next: the session with one ComfyUI, without a socket.

It is fed frames, HTTP answers, losses and the time, and gives out messages (what happened to our prompts) and requests
(what the owner should do). It never raises on anything an upstream says and gives every prompt exactly one Outcome.

The rules:

* **Truth is /history and /queue.** Frames are hints: a prompt ends only when its history entry says so, or when it is
  neither there nor queued (Lost). A hint that it ended, 5 s of silence, a lost socket or an unclear answer to
  POST /prompt lead to asking.
* **Asking takes up to three answers**, in an order that leaves no gap: history (usually enough), the queue, history once
  more. ComfyUI moves a prompt from queue to history under one lock, so "not queued" followed by "not in history" means
  that it is gone; the other way round would mean nothing.
* **A new socket under an old client id may be mute.** When the handler of the old socket ends late, ComfyUI forgets the
  new one. So a second after connecting we send ``feature_flags``, as the first message; no answer means: close, and
  connect again. The same when a prompt was accepted or ended and no frame told.
* **One answer out of 200 + node_errors is a refusal**: ComfyUI would run only a part of the graph.

Source: ComfyUI a125cd84, ``server.py`` (``websocket_handler``, ``post_prompt``), ``execution.py`` (``PromptQueue``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from gateway.comfy import answers, failures, frames
from gateway.comfy.messages import Interrupted, LogLine, Lost, Message, Outcome, Preview
from gateway.comfy.narration import Narrator
from gateway.comfy.requests import (
    AskHistory,
    AskQueue,
    ClearStale,
    Dequeue,
    DoubtStaged,
    Reconnect,
    Request,
    SendProbe,
)

#: Silence about a prompt of ours that is answered by asking.
SILENCE_SECONDS = 5.0
#: How soon to ask again what was answered badly or not at all.
RETRY_SECONDS = 1.0
#: A hint says it ended, history does not yet: ``execution_success`` comes before the entry by a few milliseconds.
ENDING_SECONDS = 0.25
#: The handler of a dropped socket ends within this time, and takes the client id with it.
PROBE_DELAY_SECONDS = 1.0
#: An answer to the probe takes milliseconds; a stuck reader elsewhere may hold it up.
PROBE_ANSWER_SECONDS = 5.0
#: ComfyUI's first frame comes with the connection; ``status`` frames with every submission and end.
FRAME_DUE_SECONDS = 5.0
#: A server that never answers does not know the question (before 0.3.40 or so), or nothing helps.
MAX_UNANSWERED_PROBES = 3
#: No HTTP answer for this long: running prompts are given up.
DEAD_SECONDS = 60.0
#: After an unclear POST the request may still lie unread in a buffer: "gone" counts only when it is said again later.
UNCLEAR_SECONDS = 2.0

# -------------------------------------------------------------------------------------------------------------- states


class _Question(Enum):
    """Which answer a prompt waits for."""

    NONE = auto()
    HISTORY = auto()
    QUEUE = auto()
    #: History again, after the queue did not hold it.
    LAST_WORD = auto()


class _Submission(Enum):
    """What is known of the POST that made a prompt."""

    #: Under way: not being there means nothing yet.
    SENT = auto()
    #: Answered badly or not at all.
    UNCLEAR = auto()
    #: The upstream has had it: accepted, adopted, or seen in a frame, in the queue or in history.
    KNOWN = auto()


@dataclass(slots=True)
class _Prompt:
    id: str
    narrator: Narrator
    submission: _Submission
    #: Last sign of life: a frame about it, or an answer that holds it.
    heard_at: float
    #: When its POST was begun; None for an adopted one, whose frames we may have missed.
    submitted_at: float | None = None
    question: _Question = _Question.NONE
    #: Ask no earlier than this; None = when ``SILENCE_SECONDS`` have passed.
    ask_at: float | None = None
    #: A hint came while a question was open: its answer may be older than the hint.
    ask_again: bool = False
    #: Number of the GET /queue that may speak of it: one that was sent after the question arose.
    queue_ask: int = 0
    #: A frame said that it ended.
    end_told: bool = False
    #: We had it taken out of the queue.
    is_dequeued: bool = False
    #: When an unclear one was first not found.
    missing_since: float | None = None


class Session:
    """One upstream's side of the talk.

    The owner feeds it and after every call takes ``take_messages()`` and ``take_requests()``, and calls ``tick`` no
    later than ``next_deadline()``. All times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._prompts: dict[str, _Prompt] = {}
        self._messages: list[Message] = []
        self._requests: list[Request] = []
        self._probe_at: float | None = None
        self._probe_answer_due: float | None = None
        #: A frame must come by then, or the socket is mute.
        self._frame_due: float | None = None
        self._connected_at: float | None = None
        self._last_frame_at: float | None = None
        self._unanswered_probes = 0
        self._queue_asks = 0
        self._queue_asked = False
        self._silent_since: float | None = None
        self._highest_number: float | None = None

    # ------------------------------------------------------------------------------------------------------- giving out

    def take_messages(self) -> list[Message]:
        """Messages since the last call, in order; nothing follows a prompt's Outcome."""
        taken, self._messages = self._messages, []
        return taken

    def take_requests(self) -> list[Request]:
        """Requests since the last call, in order."""
        taken, self._requests = self._requests, []
        return taken

    def next_deadline(self) -> float | None:
        """When ``tick`` must be called at the latest; None while nothing is waited for."""
        moments = [self._probe_at, self._probe_answer_due, self._frame_due, *map(self._ask_at, self._prompts.values())]
        if self._silent_since is not None and any(
            prompt.submission is not _Submission.SENT for prompt in self._prompts.values()
        ):
            moments.append(self._silent_since + DEAD_SECONDS)
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def _is_connected(self) -> bool:
        return self._connected_at is not None

    @property
    def live_prompts(self) -> frozenset[str]:
        """Prompts without an Outcome."""
        return frozenset(self._prompts)

    @property
    def waiting_prompts(self) -> frozenset[str]:
        """Prompts that the upstream has, or may have, and that have not begun as far as is known."""
        return frozenset(key for key, prompt in self._prompts.items() if not prompt.narrator.has_started)

    # ---------------------------------------------------------------------------------------------------------- prompts

    def submitting(self, prompt_id: str, *, now: float) -> None:
        """POST /prompt is about to be sent. Must be followed by ``submission_answered`` or ``submission_failed``."""
        self._prompts[prompt_id] = _Prompt(prompt_id, Narrator(prompt_id), _Submission.SENT, now, submitted_at=now)

    def submission_answered(self, prompt_id: str, status: int, body: bytes, *, now: float) -> None:
        """POST /prompt was answered."""
        self.http_answered()
        prompt = self._prompts.get(prompt_id)
        if prompt is None:
            return
        answer = answers.parse_submission(status, body)
        match answer:
            case answers.Accepted():
                self._accepted(prompt, answer, now)
            case answers.Refused():
                self._refused(prompt, answer)
            case answers.TurnedAway():
                self._end(Lost(prompt_id, f"the upstream turned the request away (HTTP {answer.status})"))
            case answers.Unclear():
                self._unclear(prompt)

    def submission_failed(self, prompt_id: str, *, was_sent: bool, now: float) -> None:
        """POST /prompt was not answered.

        Args:
            prompt_id: whose.
            was_sent: False when not a byte of it can have reached the upstream.
            now: monotonic seconds.
        """
        self.http_failed(now=now)
        prompt = self._prompts.get(prompt_id)
        if prompt is None:
            return
        if was_sent:
            self._unclear(prompt)
        else:
            self._end(Lost(prompt_id, "the upstream could not be reached"))

    def adopt(self, prompt_id: str, *, now: float) -> None:
        """Follow a prompt that was submitted before, by whoever had this client id."""
        if prompt_id not in self._prompts:
            # It may have been stored just before a POST that never went out, or that is still on its way.
            self._prompts[prompt_id] = _Prompt(prompt_id, Narrator(prompt_id), _Submission.UNCLEAR, now, ask_at=now)
            self._ask(self._prompts[prompt_id])

    def dequeued(self, prompt_id: str) -> None:
        """We took it off the server: not finding it any more means interrupted, not lost."""
        prompt = self._prompts.get(prompt_id)
        if prompt is not None:
            prompt.is_dequeued = True
            if prompt.question is _Question.NONE and prompt.submission is not _Submission.SENT:
                self._ask(prompt)

    def is_submitting(self, prompt_id: str) -> bool:
        """Whether its POST is under way, so that it may yet appear on the server."""
        prompt = self._prompts.get(prompt_id)
        return prompt is not None and prompt.submission is not _Submission.KNOWN

    def forget(self, prompt_id: str) -> None:
        """Nobody follows it any more; it gets no Outcome."""
        self._prompts.pop(prompt_id, None)

    def _accepted(self, prompt: _Prompt, answer: answers.Accepted, now: float) -> None:
        if self._highest_number is not None and answer.number < self._highest_number:
            # Numbers count up from 0 in memory, so it has been restarted; its files may be others' now.
            self._requests.append(DoubtStaged("the upstream was restarted"))
        self._highest_number = answer.number
        if answer.faults:
            self._requests.append(Dequeue(prompt.id))
            self._refuse(failures.partly_accepted(prompt.id, answer.faults), answer.faults)
            return
        self._heard(prompt, now)
        if self._last_frame_at is None or (prompt.submitted_at or now) > self._last_frame_at:
            self._expect_frame(prompt, now)  # `status` goes to every socket when a prompt is queued

    def _refused(self, prompt: _Prompt, answer: answers.Refused) -> None:
        self._refuse(failures.refusal_of(prompt.id, answer), answer.faults)

    def _refuse(self, outcome: Outcome, faults: tuple[answers.NodeFault, ...]) -> None:
        if failures.names_missing_file(faults):
            # Not the graph's fault: what we had uploaded is gone. To be staged and tried again at no cost.
            self._requests.append(DoubtStaged("an uploaded file is not there any more"))
            outcome = Interrupted(outcome.prompt_id)
        self._end(outcome)

    def _unclear(self, prompt: _Prompt) -> None:
        if prompt.submission is _Submission.SENT:
            prompt.submission = _Submission.UNCLEAR
        if prompt.question is _Question.NONE:
            self._ask(prompt)

    # ----------------------------------------------------------------------------------------------------------- socket

    def connected(self, *, now: float) -> None:
        """The socket is open."""
        self._connected_at = now
        self._probe_at = now + PROBE_DELAY_SECONDS if self._unanswered_probes < MAX_UNANSWERED_PROBES else None
        self._probe_answer_due = None
        self._frame_due = now + FRAME_DUE_SECONDS
        self._ask_all(now)  # what was said while nobody listened

    def disconnected(self, *, now: float) -> None:
        """The socket is gone, or could not be opened. That alone loses nothing."""
        was_connected, self._connected_at = self._is_connected, None
        self._probe_at = self._probe_answer_due = self._frame_due = None
        if was_connected:
            self._requests.append(DoubtStaged("the connection was lost"))
            self._ask_all(now)

    def text(self, frame: str | bytes, *, now: float) -> bool:
        """A text frame came.

        Returns:
            Whether it was a mere step of a running prompt's counter, of which there may be hundreds a second: after one
            there are no requests, and no earlier deadline.
        """
        parsed = frames.parse_text(frame)
        self._last_frame_at, self._frame_due = now, None
        if isinstance(parsed, frames.ProgressTick):
            prompt = self._prompts.get(parsed.prompt_id)
            if prompt is not None and prompt.narrator.has_started:  # so it is known, and its silence counts already
                self._heard(prompt, now)
                if (counted := prompt.narrator.count(parsed)) is not None:
                    self._messages.append(counted)
                return True
        if parsed is not None:
            self._told(parsed, now)
        return False

    def _told(self, parsed: frames.TextFrame, now: float) -> None:
        match parsed:
            case frames.FeatureFlags():
                self._probe_answer_due = None
                self._unanswered_probes = 0
            case frames.Logs():
                self._logs(parsed)
            case frames.QueueStatus():
                pass  # for everybody, and about nobody's prompt; that it came is all that matters
            case frames.Executing(prompt_id=None):
                self._replayed(parsed, now)
            case _:
                prompt = self._prompts.get(parsed.prompt_id or "")
                if prompt is not None:
                    self._frame_of(prompt, parsed, now)

    def binary(self, frame: bytes, *, now: float) -> None:
        """A binary frame came."""
        self._last_frame_at, self._frame_due = now, None
        picture = frames.parse_binary(frame)
        if picture is None:
            return
        # The old kind names no prompt. It comes to whoever submitted the running one, or to all when nobody did: it is
        # ours when one of ours runs.
        prompt = self._prompts.get(picture.prompt_id) if picture.prompt_id is not None else self._running()
        if prompt is None:
            return
        self._heard(prompt, now)
        node_id = prompt.narrator.display(picture.node_id) if picture.node_id is not None else None
        self._messages.append(Preview(prompt.id, node_id, picture.content_type, picture.data))

    def _expect_frame(self, prompt: _Prompt, now: float) -> None:
        """A frame about this prompt should have come on this socket by now; if none comes soon, it is mute."""
        if self._is_witness(prompt) and self._frame_due is None:
            self._frame_due = now + FRAME_DUE_SECONDS

    def _is_witness(self, prompt: _Prompt) -> bool:
        """Whether the socket has been open since before the prompt was submitted."""
        return (
            self._connected_at is not None
            and prompt.submitted_at is not None
            and prompt.submitted_at >= self._connected_at
        )

    def _frame_of(self, prompt: _Prompt, frame: frames.PromptFrame, now: float) -> None:
        self._heard(prompt, now)
        match frame:
            case frames.Executing(node_id=None) | frames.ExecutionEnded():
                self._ending(prompt)
            case _:
                self._messages.extend(prompt.narrator.tell(frame))

    def _replayed(self, frame: frames.Executing, now: float) -> None:
        # All that a reconnecting client is told: the running prompt is its own, and where it is.
        running = self._running() or (next(iter(self._prompts.values())) if len(self._prompts) == 1 else None)
        if running is not None and running.submission is _Submission.KNOWN and frame.node_id is not None:
            self._heard(running, now)
            self._messages.extend(running.narrator.tell(frame))

    def _logs(self, frame: frames.Logs) -> None:
        running = self._running()
        if running is not None:  # one prompt runs at a time, so what is logged meanwhile is said of it
            self._messages.extend(LogLine(running.id, line) for line in frame.lines)

    def _running(self) -> _Prompt | None:
        return next(
            (prompt for prompt in self._prompts.values() if prompt.narrator.has_started and not prompt.end_told), None
        )

    def _ending(self, prompt: _Prompt) -> None:
        prompt.end_told = True
        if prompt.question is _Question.NONE:
            self._ask(prompt)
        else:
            prompt.ask_again = True

    # ------------------------------------------------------------------------------------------------------------- HTTP

    def history_answered(self, prompt_id: str, status: int, body: bytes, *, now: float) -> None:
        """GET /history/{prompt_id} was answered."""
        self.http_answered()
        prompt = self._prompts.get(prompt_id)
        if prompt is None:
            return
        answer = answers.parse_history(prompt_id, status, body)
        match answer:
            case answers.HistoryEntry():
                self._history_tells(prompt, answer, now)
            case answers.NotInHistory():
                self._not_in_history(prompt, now)
            case None:
                self._ask_later(prompt, now + RETRY_SECONDS)

    def queue_answered(self, status: int, body: bytes, *, now: float) -> None:
        """GET /queue was answered."""
        self.http_answered()
        self._queue_asked = False
        answered = self._queue_asks
        queue = answers.parse_queue(status, body)
        for prompt in list(self._prompts.values()):
            if prompt.question is not _Question.QUEUE:
                continue
            if prompt.queue_ask > answered:
                self._ask_queue(prompt)  # this answer may be older than the prompt
            elif queue is None:
                self._ask_later(prompt, now + RETRY_SECONDS)
            elif queue.holds(prompt.id):
                self._queue_holds(prompt, queue, now)
            else:
                prompt.question = _Question.LAST_WORD
                self._requests.append(AskHistory(prompt.id))

    def ask_failed(self, request: AskHistory | AskQueue, *, now: float) -> None:
        """A question got no answer."""
        self.http_failed(now=now)
        if isinstance(request, AskQueue):
            self._queue_asked = False
            waiting = [prompt for prompt in self._prompts.values() if prompt.question is _Question.QUEUE]
        else:
            waiting = [prompt for prompt in self._prompts.values() if prompt.id == request.prompt_id]
        for prompt in waiting:
            self._ask_later(prompt, now + RETRY_SECONDS)

    def http_failed(self, *, now: float) -> None:
        """Any HTTP request got no answer."""
        if self._silent_since is None:
            self._silent_since = now

    def http_answered(self) -> None:
        """Any HTTP request was answered, whatever it said."""
        self._silent_since = None

    def _history_tells(self, prompt: _Prompt, entry: answers.HistoryEntry, now: float) -> None:
        if failures.is_unfinished_batch(entry):
            self._requests.append(ClearStale())
        if not prompt.end_told:
            self._expect_frame(
                prompt, now
            )  # that it ended comes in several frames; history was quicker, or they got lost
        self._end(failures.outcome_of(entry))

    def _not_in_history(self, prompt: _Prompt, now: float) -> None:
        match prompt.question:
            case _Question.HISTORY:
                prompt.question = _Question.QUEUE
                self._ask_queue(prompt)
            case _Question.LAST_WORD:
                self._gone(prompt, now)
            case _Question.NONE | _Question.QUEUE:
                pass  # an answer nobody waits for

    def _queue_holds(self, prompt: _Prompt, queue: answers.QueueSnapshot, now: float) -> None:
        self._heard(prompt, now)
        prompt.question = _Question.NONE
        if any(item.prompt_id == prompt.id for item in queue.running):
            self._messages.extend(prompt.narrator.start())  # its start was missed
        if prompt.ask_again or prompt.end_told:
            prompt.ask_again = False
            prompt.ask_at = now + ENDING_SECONDS

    def _gone(self, prompt: _Prompt, now: float) -> None:
        if prompt.submission is _Submission.SENT:
            self._ask_later(prompt, now + RETRY_SECONDS)
        elif prompt.submission is _Submission.UNCLEAR:
            if prompt.missing_since is None:
                prompt.missing_since = now
            if now - prompt.missing_since < UNCLEAR_SECONDS:
                self._ask_later(prompt, prompt.missing_since + UNCLEAR_SECONDS)
                return
            self._requests.append(Dequeue(prompt.id))  # should it arrive after all
            self._end(Lost(prompt.id, "the upstream does not have it"))
        elif prompt.is_dequeued or self._was_dequeued_by_others(prompt):
            self._end(Interrupted(prompt.id))
        else:
            self._requests.append(DoubtStaged("the upstream forgot a prompt"))
            self._end(Lost(prompt.id, "the upstream no longer knows it"))

    def _was_dequeued_by_others(self, prompt: _Prompt) -> bool:
        # What is deleted while it waits leaves no trace. A restart would have cost us the socket; so would a start have
        # been told on it.
        return not prompt.narrator.has_started and self._is_witness(prompt)

    # ------------------------------------------------------------------------------------------------------------- time

    def tick(self, *, now: float) -> None:
        """Time has passed."""
        if self._probe_at is not None and now >= self._probe_at:
            self._probe_at = None
            self._probe_answer_due = now + PROBE_ANSWER_SECONDS
            self._unanswered_probes += 1
            self._requests.append(SendProbe())
        if self._is_overdue(self._probe_answer_due, now):
            self._reconnect("the upstream does not answer on the socket")
        elif self._is_overdue(self._frame_due, now):
            self._reconnect("the socket is silent")
        if self._silent_since is not None and now - self._silent_since >= DEAD_SECONDS:
            # One whose POST is under way may yet be accepted; its own time-out makes it unclear first.
            for prompt in [prompt for prompt in self._prompts.values() if prompt.submission is not _Submission.SENT]:
                self._end(Lost(prompt.id, "the upstream does not answer"))
        for prompt in list(self._prompts.values()):
            if self._is_overdue(self._ask_at(prompt), now):
                self._ask(prompt)

    @staticmethod
    def _is_overdue(moment: float | None, now: float) -> bool:
        return moment is not None and now >= moment

    def _reconnect(self, reason: str) -> None:
        self._probe_at = self._probe_answer_due = self._frame_due = None
        self._requests.append(Reconnect(reason))

    # ----------------------------------------------------------------------------------------------------------- asking

    def _ask_at(self, prompt: _Prompt) -> float | None:
        if prompt.question is not _Question.NONE or prompt.submission is _Submission.SENT:
            return None
        return prompt.ask_at if prompt.ask_at is not None else prompt.heard_at + SILENCE_SECONDS

    def _ask_all(self, now: float) -> None:
        for prompt in self._prompts.values():
            if prompt.submission is not _Submission.SENT:
                prompt.ask_at = now
                if prompt.question is _Question.NONE:
                    self._ask(prompt)

    def _ask(self, prompt: _Prompt) -> None:
        prompt.question = _Question.HISTORY
        prompt.ask_at = None
        prompt.ask_again = False
        self._requests.append(AskHistory(prompt.id))

    def _ask_queue(self, prompt: _Prompt) -> None:
        prompt.queue_ask = self._queue_asks + 1
        if not self._queue_asked:
            self._queue_asked = True
            self._queue_asks += 1
            self._requests.append(AskQueue())

    def _ask_later(self, prompt: _Prompt, at: float) -> None:
        prompt.question = _Question.NONE
        prompt.ask_at = at

    def _heard(self, prompt: _Prompt, now: float) -> None:
        prompt.submission = _Submission.KNOWN
        prompt.heard_at = now
        prompt.missing_since = None

    def _end(self, outcome: Outcome) -> None:
        if self._prompts.pop(outcome.prompt_id, None) is not None:
            self._messages.append(outcome)
