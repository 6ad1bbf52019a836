"""What is going to happen in one world, drawn from its seed before it begins.

Each world has only some kinds of trouble (each with its own chance), so that some worlds have one kind in plenty: bugs
hide behind one another when everything goes wrong everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

#: kind -> (chance that a world knows it, longest duration in seconds or 0, most times).
TROUBLES: dict[str, tuple[float, float, int]] = {
    "kill_gateway": (0.45, 20.0, 3),
    "freeze_gateway": (0.25, 45.0, 2),
    "stop_gateway": (0.15, 10.0, 1),
    "kill_server": (0.35, 60.0, 2),
    "partition": (0.25, 130.0, 2),
    "drop_socket": (0.25, 0.0, 3),
    "mute_socket": (0.2, 0.0, 2),
    "block_frames": (0.15, 40.0, 1),
    "block_http": (0.2, 40.0, 2),
    "bad_weather": (0.35, 40.0, 2),
    "foreign_prompt": (0.2, 0.0, 2),
    "foreign_interrupt": (0.1, 0.0, 2),
    "foreign_delete": (0.1, 0.0, 2),
    "wipe_disk": (0.12, 0.0, 2),
    "drain": (0.12, 30.0, 1),
    "remove": (0.1, 30.0, 1),
    "echo": (0.6, 0.0, 6),
    "disk_full": (0.07, 10.0, 1),
}
#: How a prompt may go wrong -> the chance that a world knows it.
HABITS = {
    "quiet": 0.25,
    "hung": 0.12,
    "deaf": 0.07,
    "error": 0.15,
    "oom": 0.12,
    "file_missing": 0.15,
    "late_success": 0.2,
}
#: Its share of the prompts there.
SHARES = (0.1, 0.3, 0.8)
#: How often a world has jobs that kill what runs them. There nothing else takes a single server from the gateway, so that
#: who is to blame for a death is known.
POISON_CHANCE = 0.25
POISON_AFTER = 2
NOT_BESIDE_POISON = frozenset({"kill_server", "partition", "block_http"})
#: All servers of such a world may go at about the same time, and come back one by one.
POWER_CUT_CHANCE = 0.5
MOST_POWER_CUTS = 3
#: Actions whose subject is a job.
CLIENTS = frozenset({"submit", "cancel"})
#: How often a world has jobs that run a client's own graph, and how many of its jobs these are.
WORKFLOW_CHANCE = 0.35
#: One of those that leave the worlds as they were by whose seeds guards had been missed before.
SALT = 15416
WORKFLOW_SHARE = 0.6
#: How many of them come with a secret.
SECRET_SHARE = 0.5
#: How many jobs of such a world spring a trap when they tell of an output.
OUTPUT_TRAP_SHARE = 0.4
#: How often a world has a job whose prompt is stranded when it starts.
STRAND_CHANCE = 0.12
#: How much longer such a world goes on, lest peace come while it is cut off.
STRAND_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Action:
    """Something that happens to the world at a time."""

    at: float
    kind: str
    #: Number of the job or the server it happens to.
    subject: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Trap:
    """Something that happens right when a job is told a kind of event."""

    on: str
    #: "cancel" it, "cancel neighbours" on the same upstream, "kill" the gateway, "kill server" that runs it, or "strand"
    #: its prompt: the upstream is cut off until the attempt is given up, and comes back with the prompt alive.
    what: str
    after_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One world's plan."""

    seed: int
    servers: int
    jobs: int
    #: Seconds a job may wait.
    queue_ttl: float
    max_attempts: int
    #: Longest work of a prompt.
    longest_work: float
    #: From then on nothing goes wrong any more.
    peace_at: float
    habits: dict[str, float] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    #: By the number of the job, in the order in which they were stored.
    traps: dict[int, Trap] = field(default_factory=dict)
    #: Upstreams that must have died of a task; 0: nothing is quarantined.
    poison_after: int = 0
    #: Numbers of the jobs that kill each upstream that runs them.
    poisonous: frozenset[int] = frozenset()
    #: Numbers of the requests for jobs that run a client's own graph, and of those among them that bring a secret.
    workflows: frozenset[int] = frozenset()
    secret: frozenset[int] = frozenset()
    #: As ``traps``, for the first output that a job tells of.
    output_traps: dict[int, Trap] = field(default_factory=dict)


def draw(seed: int, random: Random) -> Plan:
    """The plan of a seed; ``random`` is the one source of chance, and goes on being it in the world."""
    servers = random.choice((1, 1, 2, 2, 3))
    jobs = random.randint(2, 5)
    peace_at = random.uniform(20.0, 110.0)
    actions = []
    for number in range(jobs):
        at = random.uniform(0.0, peace_at * 0.6)
        actions.append(Action(at, "submit", number))
        if random.random() < 0.25:
            actions.append(Action(at + random.choice((0.0, 0.05, 0.5, 5.0, 30.0)) * random.random(), "cancel", number))
    for kind, (chance, longest, most) in TROUBLES.items():
        if random.random() < chance:
            for _ in range(random.randint(1, most)):
                seconds = min(longest, longest * random.random() ** 2 + 0.1) if longest else 0.0
                actions.append(Action(random.uniform(0.0, peace_at), kind, random.randrange(servers), seconds))
    traps = {number: _trap(random) for number in range(jobs) if random.random() < 0.4}
    if random.random() < STRAND_CHANCE:
        traps[random.randrange(jobs)] = Trap("started", "strand", 0.1 * random.random())
        peace_at += STRAND_SECONDS
    habits = {kind: random.choice(SHARES) for kind, chance in HABITS.items() if random.random() < chance}
    poisonous: frozenset[int] = frozenset()
    if has_poison := random.random() < POISON_CHANCE:
        poisonous = frozenset(random.sample(range(jobs), random.choice((0, 1, 1, 1, 2))))
        servers = random.choice((1, 2, 3, 3))
        actions = [
            replace(action, subject=action.subject if action.kind in CLIENTS else action.subject % servers)
            for action in actions
            if action.kind not in NOT_BESIDE_POISON
        ]
        traps = {number: trap for number, trap in traps.items() if trap.what != "strand"}
        if random.random() < POWER_CUT_CHANCE:
            for _ in range(random.randint(1, MOST_POWER_CUTS)):
                actions.append(Action(random.uniform(0.0, peace_at), "power_cut"))
    actions.sort(key=lambda action: action.at)
    plan = Plan(
        seed=seed,
        servers=servers,
        jobs=jobs,
        queue_ttl=random.choice((40.0, 86_400.0, 86_400.0, 86_400.0)),
        max_attempts=random.choice((1, 2, 3, 3)),
        longest_work=random.choice((1.0, 5.0, 20.0, 50.0)),
        peace_at=peace_at,
        habits=habits,
        actions=tuple(actions),
        traps=traps,
        poison_after=POISON_AFTER if has_poison else 0,
        poisonous=poisonous,
    )
    return _with_workflows(plan)


def _with_workflows(plan: Plan) -> Plan:
    """From chance of its own, so that a world without them is what it was before there were any."""
    jobs, chance = plan.jobs, Random(f"workflows {SALT} {plan.seed}")  # noqa: S311 - nothing here is a secret
    if chance.random() >= WORKFLOW_CHANCE:
        return plan
    workflows = frozenset(number for number in range(jobs) if chance.random() < WORKFLOW_SHARE)
    secret = frozenset(number for number in sorted(workflows) if chance.random() < SECRET_SHARE)
    traps = {
        number: Trap("output", chance.choice(("kill", "kill server", "kill server", "cancel")), 0.1 * chance.random())
        for number in range(jobs)
        if chance.random() < OUTPUT_TRAP_SHARE
    }
    return replace(
        plan,
        workflows=workflows,
        secret=secret,
        # Beside poison nothing but it kills a server.
        output_traps={} if plan.poison_after else traps,
    )


def _trap(random: Random) -> Trap:
    on = random.choice(("dispatched", "started", "finishing", "finishing", "requeued", "cancel_requested"))
    what = random.choice(("cancel", "cancel neighbours", "kill"))
    return Trap(on, what, random.choice((0.0, 0.02, 0.05, 0.1, 0.2)) * random.random())
