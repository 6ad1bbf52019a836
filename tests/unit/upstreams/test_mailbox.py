from __future__ import annotations

import asyncio

import pytest

from gateway.comfy.messages import (
    Interrupted,
    LogLine,
    NodeFinished,
    NodeProgress,
    NodeStarted,
    Preview,
    PromptStarted,
)
from gateway.upstreams.mailbox import MAX_MESSAGES, Mailbox

END = Interrupted("p")


async def read(mailbox):
    return [message async for message in mailbox]


def tick(value, node_id="3"):
    return NodeProgress("p", node_id, value, 24)


async def test_messages_come_in_order_and_end_with_the_outcome():
    mailbox = Mailbox()
    for message in (PromptStarted("p"), NodeStarted("p", "3"), END, PromptStarted("p")):
        mailbox.put(message)
    assert await read(mailbox) == [PromptStarted("p"), NodeStarted("p", "3"), END]
    with pytest.raises(StopAsyncIteration):
        await anext(mailbox)


async def test_reader_that_came_first_is_woken():
    mailbox = Mailbox()
    reading = asyncio.create_task(read(mailbox))
    await asyncio.sleep(0)
    mailbox.put(END)
    assert await reading == [END]


async def test_of_rising_progress_the_newest_is_kept_and_every_pass_shows():
    mailbox = Mailbox()
    for message in (tick(1), tick(2), tick(24), tick(0), tick(1), tick(9), tick(3, "4"), tick(10), END):
        mailbox.put(message)
    assert await read(mailbox) == [tick(24), tick(9), tick(3, "4"), tick(10), END]


async def test_only_the_newest_preview_waits():
    mailbox = Mailbox()
    first, second = (Preview("p", "3", "image/jpeg", data) for data in (b"1", b"2"))
    for message in (first, NodeStarted("p", "4"), second, END):
        mailbox.put(message)
    assert await read(mailbox) == [NodeStarted("p", "4"), second, END]


async def test_full_box_drops_what_passes_and_keeps_what_tells_a_state():
    mailbox = Mailbox()
    mailbox.put(PromptStarted("p"))
    for number in range(MAX_MESSAGES):
        mailbox.put(LogLine("p", str(number)))
    mailbox.put(NodeFinished("p", "3"))
    mailbox.put(END)
    assert len(mailbox) == MAX_MESSAGES
    messages = await read(mailbox)
    assert messages[0] == PromptStarted("p")
    assert messages[1] == LogLine("p", "3")
    assert messages[-2:] == [NodeFinished("p", "3"), END]
