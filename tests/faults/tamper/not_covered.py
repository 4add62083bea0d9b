"""What no audit finds, and why: every other tampering must be caught, at every moment."""

NOTHING_THERE = "nothing there to tamper with"

_UNREAD = "states without a readable manifest are never read: training makes them again"
_HISTORY = "lines of the history that no state follows from are not signed: processes without the keys write them"
_OWNERS = "the owner had given just this config, and may give it again at any time: it decides no weights"
_FENCE = "the shard's purge is on its way and writes its fence anew before it erases anything"
_LATER = (
    "clocks may be ten minutes apart; times given from then on are late, never early, and the signed ones given before "
    "stay true. One that is further ahead is told at once, and later by the witnesses and timestamps that saw the entry"
)

_INPUT = "it is for people: what the data looked like when it was read in. Places and records come from the ledger"

_CALLBACKS = (
    "how far a receiver of callbacks was told is noted by processes without the keys: messages can be withheld or "
    "repeated, never forged; receipts and `s3t deletions` say what is so"
)
_FOLLOWERS = "a server outside that is taken out of the ledger is not waited for: it is noted without the keys"

REASONS: dict[str, str] = {
    **{f"s3t_callbacks.{column} changed": _CALLBACKS for column in ("position", "attempts", "error", "at")},
    "s3t_callbacks: a row taken out": _CALLBACKS,
    **{f"s3t_followers.{column} changed": _FOLLOWERS for column in ("position", "at")},
    "s3t_followers: a row taken out": _FOLLOWERS,
    "the manifest of hidden states: cut off in the middle": _UNREAD,
    "the manifest of hidden states: taken out": _UNREAD,
    "the config with its seal, as the owner had it before": _OWNERS,
    "copies of a replay": "a replay may be at work; the next purge erases them",
    "a fence: one bit flipped": _FENCE,
    "a fence: cut off in the middle": _FENCE,
    "a fence: taken out": _FENCE,
    "s3t_events.shard changed": _HISTORY,
    "s3t_events.detail changed": _HISTORY,
    "the published log as it was before the deletions": "a log that is behind the ledger says nothing wrong, and the "
    "next publisher continues it; whoever kept a newer checkpoint, or asks a witness, sees that it is behind",
    "s3t_head.beats changed": "a sign of life: it decides nothing but when a silent scheduler is replaced",
    "the ledger's clock is set five minutes ahead": _LATER,
    "input.json: one bit flipped": _INPUT,
    "input.json: cut off in the middle": _INPUT,
    "input.json: taken out": _INPUT,
    "input.json: another partition key": _INPUT,
    "s3t_identity.place changed": "it only names the storage in an error; run ids decide what belongs together",
    "a forged pruned, with its line of history": "whether replicas confirmed is the scheduler's word; each looks at "
    "the ledger again before an answer goes out, so none comes from a stage that left service",
    "a record's text among the failures": "messages of failed stages are free text; `s3t status` shows them, and they "
    "go when the stage is accepted",
}
"""By the name of a kind. At moments at which it is caught all the same, the table says so."""
