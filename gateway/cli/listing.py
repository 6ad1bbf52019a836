"""Lists for people: lines without frames, so that ids and addresses stay whole in narrow terminals, pipes and files."""

from __future__ import annotations

from typing import Any


def show_jobs(page: Any) -> None:
    """Print a page of ``/-/jobs``, two lines each."""
    if not page["jobs"]:
        print("No jobs.")
    for job in page["jobs"]:
        print(f"{job['id']}  {job['state']:<9}  {100 * job['fraction']:5.1f} %  {job['template']}")
        print(f"    {job['created_at']}  {_end(job)}".rstrip())


def _end(job: Any) -> str:
    """Where the result is, or why there is none; "" while the job has not ended."""
    if job["results"]:
        return str(job["results"][0]["url"])
    return str(job["error"]["message"]) if job["error"] else ""


def show_upstreams(page: Any) -> None:
    """Print ``/-/upstreams``, a line each and one for each reason."""
    if not page["upstreams"]:
        print("No upstreams.")
    for member in page["upstreams"]:
        version = " ".join(part for part in (member["engine"], member["version"]) if part)
        of = f" on {member['job_id']}" if member["job_id"] else ""
        print("  ".join(part for part in (member["name"], member["address"], version, f"{_state(member)}{of}") if part))
        if member["reason"]:
            print(f"    {member['reason']}")


def _state(member: Any) -> str:
    if member["restarting"]:
        return "restarting"
    if not member["reachable"]:
        return "not reachable"
    if member["draining"]:
        return "draining"
    return "works" if member["job_id"] else "idle"


def show_users(rows: list[Any]) -> None:
    """Print users, a line each."""
    if not rows:
        print("No users.")
    for user in rows:
        verified = "  e-mail verified" if user["email_verified"] else ""
        print(f"{user['id']}  {user['name']}  {user['tier']}{verified}  since {user['created_at']}")


def show_purses(told: Any) -> None:
    """Print what a user has to spend."""
    held = told["credits"]
    print(
        f"{told['user']} has {held['total']} credit{'' if held['total'] == 1 else 's'}: {held['subscription']} subscription, {held['monthly']} monthly "
        f"({told['monthly_grant']} on each 1st), {held['permanent']} permanent"
    )


def show_entries(rows: list[Any]) -> None:
    """Print entries of a ledger, one a line."""
    for entry in rows:
        print(f"{entry['at']}  {entry['kind']:<8} {entry['credits']['total']:>+11}  {entry['job_id'] or ''}".rstrip())


def show_keys(rows: list[Any]) -> None:
    """Print keys, two lines each and one for each of their lists: they fit where a table with an id in it does not."""
    if not rows:
        print("No keys.")
    for key in rows:
        print(f"{key['id']}  {key['name']} of {key['user']}  {key['prefix']}…  {_key_state(key)}")
        print(
            f"    may {', '.join(key['scopes'])}; {key['rate_limit']} requests a minute, "
            f"{key['concurrency']} creating at a time; last used: {key['last_used_at'] or 'never'}"
        )
        for line in rules_of(key):
            print(f"    {line}")


def rules_of(key: Any) -> list[str]:
    """A line for each list of node classes that a key has, and for where its outputs go."""
    lists = (("nodes_deny", "no node class like"), ("nodes_allow", "only node classes like"))
    rules = [f"its own workflows: {how} {', '.join(key[name])}" for name, how in lists if key.get(name)]
    return [*rules, f"outputs are put to {key['deliver_to']}"] if key.get("deliver_to") else rules


def _key_state(key: Any) -> str:
    if key["revoked_at"]:
        return f"revoked {key['revoked_at']}"
    return f"ends {key['expires_at']}" if key["expires_at"] else "good"


def show_webhooks(page: Any) -> None:
    """Print messages, two lines each."""
    if not page["webhooks"]:
        print("No messages.")
    for message in page["webhooks"]:
        print(f"{message['id']}  {message['type']}  {message['state']}  {_last_attempt(message)}")
        then = f"; next: {message['next_at']}" if message["next_at"] else ""
        print(f"    {message['url']}  attempts: {message['attempts']}{then}")


def show_deliveries(page: Any) -> None:
    """Print deliveries, two lines each."""
    if not page["deliveries"]:
        print("No deliveries.")
    for delivery in page["deliveries"]:
        print(f"{delivery['id']}  {delivery['state']}  {_last_attempt(delivery)}")
        then = f"; next: {delivery['next_at']}" if delivery["next_at"] else ""
        goal = delivery["place"] or (f"{delivery['target']}: {delivery['name']}" if delivery["target"] else "nowhere")
        print(f"    {goal}  of {delivery['owner']}, attempts: {delivery['attempts']}{then}")


def _last_attempt(message: Any) -> str:
    said = message["last_status"] or (message["reason"] or "").replace("_", " ")
    return f"last: {said} at {message['last_at']}" if message["last_at"] else str(said)
